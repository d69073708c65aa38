"""The sample: digital phantoms of breasts, drawn to the same bytes each time.

No stage enters it. It may import `datasets` and what that stands on.
"""

__all__ = ["draw"]
