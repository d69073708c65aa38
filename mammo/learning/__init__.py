"""What every network shares: its device, its files, and processes that learn together.

It may import `base`.
"""

__all__ = ["device", "networks", "parallel", "weights"]
