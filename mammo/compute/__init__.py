"""Work on many items: in processes of their own, or over a Dask cluster.

It may import `base`.
"""

__all__ = ["dask_map", "worker_pool"]
