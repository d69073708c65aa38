"""Training one classifier.

It may import `classifier`, `kept` and what these stand on.
"""

__all__ = ["examples", "fit"]
