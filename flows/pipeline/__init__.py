"""dvc.yaml as DVC reads it, dvc.lock, DVC's cache and the data; running one stage.

It may import `snapshots` and `processes`.
"""

__all__ = [
    "add_data",
    "ensure_data",
    "first_weights",
    "graph",
    "known_outs",
    "lock_and_cache",
    "locked_repo",
    "pretraining",
    "transfer",
]
