"""Geometry of images, making them smaller, PNG, and where in a mammogram the breast is.

It may import `base`.
"""

__all__ = ["breast_mask", "downscale", "geometry", "png"]
