"""The whole predictor, DICOM in and a finding out, as it is registered.

It may import `intake`, `cropping`, `explanation` and what these stand on.
"""

__all__ = [
    "exam_files",
    "exams",
    "finding",
    "heat_map",
    "identity",
    "intake",
    "prediction",
    "predictor",
]
