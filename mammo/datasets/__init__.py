"""Other collections, and new exams, brought into the layout of `data/`, and looked over first.

No stage enters it. It may import `intake` and what that stands on.
"""

__all__ = ["check", "dicom_writer", "merge", "mini_mias"]
