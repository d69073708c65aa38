"""The classifier: its network, its inputs, and its predictions.

It may import `base`, `outs` and `data`.
"""

__all__ = ["inputs", "network", "predict"]
