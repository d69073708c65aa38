"""Where in a picture the classifier saw something: Grad-CAM.

It may import `classifier`, `imaging` and what these stand on.
"""

__all__ = ["grad_cam"]
