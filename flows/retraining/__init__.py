"""The retrain from its first check to the gate, its recovery, and the watch that starts it.

It may import `promotion`, `documents`, `servers` and what these stand on.
"""

__all__ = ["flow"]
