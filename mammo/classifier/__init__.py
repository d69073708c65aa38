"""The classifier: its network, its inputs, and its predictions.

It may import `base`, `outs`, `data`, `imaging`, `compute` and `learning`.
"""

__all__ = ["inputs", "network", "predict"]
