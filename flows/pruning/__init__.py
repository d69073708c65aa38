"""`mammoflow gc`: what is no longer needed, and its removal.

It may import `publishing`, `notify` and what these stand on.
"""

__all__ = ["policy", "prune"]
