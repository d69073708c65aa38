"""Training the breast detector, and going on where a training was cut short.

It may import `detector`, `learning` and what these stand on.
"""

__all__ = ["trainer"]
