"""The classifier: its network, its inputs, and its predictions.

It may import `base`, `data`, `imaging` and `learning`.
"""

__all__ = ["inputs", "network", "picture", "predict"]
