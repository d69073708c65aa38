"""Reading what one stage wrote for another: gray images and weights.

It may import `base`.
"""

__all__ = ["gray_images", "weights"]
