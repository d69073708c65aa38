"""Running a stage on another machine: the retrain's side, the worker's, and a worker's clone.

It may import `tracking` and what that stands on.
"""

__all__ = ["child_runs", "remote_stage", "worker_clone"]
