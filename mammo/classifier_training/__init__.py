"""Training one classifier.

It may import `classifier`, `learning` and what these stand on.
"""

__all__ = ["fit"]
