"""How a version came to be, looked at and done again: the audit, its page, its history.

It may import `publishing` and what that stands on.
"""

__all__ = ["audit", "history", "integrity", "page", "record"]
