"""Other collections, and new exams, brought into the layout of `data/`, and looked over first.

No stage enters it. It may import `intake`, `patches` and what these stand on.
"""

__all__ = ["cbis_ddsm", "cbis_masses", "check", "dicom_writer", "merge", "mini_mias"]
