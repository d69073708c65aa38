"""Gray images: reading, geometry, scaling and fitting them, PNG, and where the breast is.

It may import `base`.
"""

__all__ = ["breast_mask", "downscale", "fitting", "geometry", "gray_images", "png"]
