"""The region of interest: where the breast is, and the crop of it.

It may import `detector`, `kept` and what these stand on.
"""

__all__ = ["cached_crop", "find_breast"]
