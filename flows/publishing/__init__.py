"""Publishing: the git tag, data and outs of a version, put where other clones can get them.

It may import `tracking` and what that stands on.
"""

__all__ = ["publish"]
