"""Training the breast detector, and resuming a training that was interrupted.

It may import `detector`, `learning` and what these stand on.
"""

__all__ = ["trainer"]
