"""What networks share: the device, checkpoints, and the fingerprint of a machine's arithmetic.

It may import `base` and `imaging`.
"""

__all__ = ["checkpoint", "device"]
