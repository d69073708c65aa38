"""What others need to audit a version, put where they can get it.

It may import `tracking` and what that stands on.
"""

__all__ = ["publish"]
