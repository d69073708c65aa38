"""The model as a DICOM node: images come in by C-STORE, and reports go back by C-STORE.

It may import `serving` and what that stands on.
"""

__all__ = ["deliver", "listen"]
