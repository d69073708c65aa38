"""From a DICOM file to the image that every later step works on.

The training stages and the predictor call the same function, so a model never sees an image made
in another way than those it learnt from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mammo.base.settings import Preprocess
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import Description
from mammo.dicom.reader import read_mammogram
from mammo.imaging.breast_mask import SMALLEST, is_page, segment_small, turn_left
from mammo.imaging.geometry import Placement


@dataclass(frozen=True)
class Prepared:
    """A mammogram, windowed, scaled, the breast at the left edge."""

    image: NDArray[np.uint8]  # (height, width)
    placement: Placement  # where the stored image's pixels went
    description: Description


def prepare(source: Path | BinaryIO | bytes, settings: Preprocess) -> Prepared:
    """Read a mammogram and turn the breast to the left.

    Raises:
        UnreadableDicom: see `read_mammogram`; or no breast is to be seen, but text perhaps.
    """
    mammogram = read_mammogram(source, settings.long_side, settings.full_decode)
    name = str(source) if isinstance(source, Path) else None
    mask = segment_small(mammogram.pixels)
    if mask.mean() < SMALLEST:
        raise UnreadableDicom("no breast can be seen in it", name)
    if is_page(mammogram.pixels):
        raise UnreadableDicom("it is a page of text, not a mammogram", name)
    image, flipped = turn_left(mammogram.pixels, mask)
    height, width = image.shape
    placement = Placement(mammogram.stored_width, mammogram.stored_height, width, height, flipped)
    return Prepared(image, placement, mammogram.description)
