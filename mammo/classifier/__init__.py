"""The classifier: its network, its inputs, and its predictions.

It may import `base`, `outs`, `data` and `imaging`.
"""

__all__ = ["inputs", "network", "predict"]
