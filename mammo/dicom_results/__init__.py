"""An exam's finding in the clinic's own formats: structured reports and pictures, as DICOM objects.

It may import `serving`, `dicom` and what these stand on.
"""

from mammo.dicom_results.objects import Report
from mammo.dicom_results.source import strip_pixels
from mammo.dicom_results.write import REPORTS, Kind, write_results

__all__ = ["REPORTS", "Kind", "Report", "strip_pixels", "write_results"]
