"""The snapshot, which defines a model, and the environment in which it was computed.

It may import `processes`.
"""

__all__ = ["earlier_layout", "environment", "snapshot"]
