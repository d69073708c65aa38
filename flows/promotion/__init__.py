"""The gate at work: who becomes champion, and why.

It may import `audit`, whose checks it shares, and what that stands on.
"""

__all__ = ["budget", "flow"]
