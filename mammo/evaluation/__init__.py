"""How good predictions are.

It may import `base`.
"""

__all__ = ["metrics"]
