"""The whole predictor, DICOM in and a finding out, as it is registered.

It may import every room but those of training.
"""

__all__ = ["exam_files", "exams", "finding", "heat_map", "intake", "look", "predictor"]
