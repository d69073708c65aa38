"""Work on many items: in processes of their own, or over a Dask cluster.

It may import `kept` and what that stands on.
"""

__all__ = ["dask_map", "worker_pool"]
