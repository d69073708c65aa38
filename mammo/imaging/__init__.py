"""Geometry of images, scaling and fitting them, PNG, and where in a mammogram the breast is.

It may import `base`.
"""

__all__ = ["breast_mask", "downscale", "fitting", "geometry", "png"]
