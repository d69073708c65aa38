"""Training one classifier.

It may import `classifier`, `learning`, `compute` and what these stand on.
"""

__all__ = ["fit"]
