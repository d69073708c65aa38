"""`mammoflow up`: the servers, the workers, and what Prefect must know before they can work.

It may import `remote`, `notify` and what these stand on.
"""

__all__ = ["deployments", "up", "wanted"]
