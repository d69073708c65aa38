"""The classifier: its network, its inputs, and what it says of them.

It may import `base`, `outs`, `data` and `imaging`.
"""

__all__ = ["inputs", "network", "predict"]
