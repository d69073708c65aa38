"""One picture as the network takes it: the breast cut out, at the network's size."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.gray_images import read_gray

Gray = NDArray[np.uint8]
Roi = Path | Gray


def load_picture(roi: Roi, height: int, width: int) -> Gray:
    """One ROI, an image file or pixels, at the network's size: (height, width).

    Raises:
        UserError: if the file cannot be read.
    """
    return fit_in_frame(read_gray(roi) if isinstance(roi, Path) else roi, width, height)[0]
