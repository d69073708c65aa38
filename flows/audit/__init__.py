"""The audit of a version: how it was made is checked and done again; its page, its history.

It may import `evidence` and what that stands on.
"""

__all__ = ["audit", "history", "integrity", "page", "record"]
