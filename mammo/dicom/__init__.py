"""Reading mammograms from DICOM files, whatever hospitals and attackers put into them.

It may import `base` and `imaging`.
"""

from mammo.dicom.reader import Mammogram, read_mammogram

__all__ = [
    "Mammogram",
    "container",
    "errors",
    "header",
    "read_mammogram",
    "reader",
    "values",
]
