"""Training the breast detector, and resuming a training that was interrupted.

It may import `detector`, `kept` and what these stand on.
"""

__all__ = ["trainer"]
