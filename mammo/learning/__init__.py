"""What every network shares: the device that it computes on, and processes that learn together.

It may import `base`.
"""

__all__ = ["device", "parallel"]
