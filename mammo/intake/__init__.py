"""From a DICOM file to the prepared picture, for one image or for a whole collection.

It may import `data`, `dicom`, `compute` and what these stand on.
"""

__all__ = ["cached_prepare", "examine", "prepare"]
