"""An exam's finding in the clinic's own formats: structured reports and pictures, as DICOM objects.

It may import `serving`, `dicom` and what these stand on.
"""

__all__ = ["objects", "source", "write"]
