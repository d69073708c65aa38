"""The figures of reports, drawn to the same bytes each time.

It imports nothing of ours.
"""

__all__ = ["figures"]
