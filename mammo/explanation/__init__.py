"""Which part of a picture raised the classifier's probability: Grad-CAM and its relatives.

It may import `classifier`, `imaging` and what these stand on.
"""

__all__ = ["grad_cam", "overlay"]
