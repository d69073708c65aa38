"""What one stage writes for another: gray images, weights and trained networks.

It may import `base`.
"""

__all__ = ["gray_images", "networks", "weights"]
