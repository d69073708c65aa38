"""What every network shares: the device that it computes on.

It may import `base`.
"""

__all__ = ["device"]
