"""An exam's finding in the clinic's own formats: structured reports and pictures, as DICOM objects.

It may import `serving`, `dicom` and what these stand on.
"""

from mammo.dicom_results.write import Kind, write_results

__all__ = ["Kind", "write_results"]
