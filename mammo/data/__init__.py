"""The tables of `data/` and of the stages, and which woman is in which split.

It may import `base`.
"""

__all__ = ["reading", "splits", "tables"]
