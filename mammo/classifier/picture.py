"""One picture as the network takes it: the breast cut out, at the network's size."""

from pathlib import Path

from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.gray_images import Gray, read_gray

RoiSource = Path | Gray
"""An ROI: an image file, or pixels."""


def load_picture(roi: RoiSource, height: int, width: int) -> Gray:
    """One ROI, an image file or pixels, at the network's size: (height, width).

    Raises:
        UserError: if the file cannot be read.
    """
    return fit_in_frame(read_gray(roi) if isinstance(roi, Path) else roi, width, height)[0]
