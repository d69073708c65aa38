"""The snapshot, which is what defines a model, and the environment that it was computed in.

It may import `processes`.
"""

__all__ = ["earlier_layout", "environment", "snapshot"]
