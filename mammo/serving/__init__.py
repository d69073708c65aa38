"""The whole predictor, DICOM in and a probability out, as it is registered.

It may import every room but those of training.
"""

__all__ = ["finding", "predictor"]
