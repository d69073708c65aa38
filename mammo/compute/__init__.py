"""Work on many items: in processes of their own, over a Dask cluster, and kept from run to run.

It may import `base`.
"""

__all__ = ["dask_map", "result_store", "worker_pool"]
