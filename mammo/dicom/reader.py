"""A mammogram's DICOM file, as a radiologist would see it, at the size asked for.

Scaling down is by area averaging of the stored values; the grey-scale transformations are then
applied to the small image, so no floating-point copy of a full-size image is ever made.
"""

import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from mammo.dicom.container import Content, open_content
from mammo.dicom.display import apply_voi_lut, apply_window, to_grey
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import (
    PADDING,
    TABLE,
    WINDOW,
    Description,
    Header,
    read_header,
    read_patient_hash,
)
from mammo.dicom.picture import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    SMALLEST_BREAST,
    is_useful,
    refuse_flat_fields,
    refuse_masks,
    sample,
)
from mammo.dicom.pixels import decode
from mammo.imaging.downscale import downscale

__all__ = ["Mammogram", "UnreadableDicom", "read_mammogram", "read_patient"]

LOSSY = {
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
}

SMEARED = 8
"""Pixels to which a lossy encoding carries the padding's value: a block of JPEG; the filters of
JPEG 2000 are as wide at the levels that matter."""

# It quotes what it stumbles over, and that may be a name or a date.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
_QUIET = ("ignore", None, Warning, re.compile(r"(pydicom|PIL)(\.|$)"), 0)
"""As `warnings` keeps what `filterwarnings` is told."""


@dataclass(frozen=True)
class Mammogram:
    """One view of one breast."""

    pixels: NDArray[np.uint8]  # (height, width), black to white as on a viewing station
    stored_width: int  # pixels of the matrix in the file
    stored_height: int
    description: Description


def read_mammogram(
    source: Path | BinaryIO | bytes, long_side: int, full_decode: bool = False
) -> Mammogram:
    """Decode a mammogram and apply its grey-scale transformations.

    The modality rescale and the first VOI window are applied (LINEAR, LINEAR_EXACT or SIGMOID,
    PS3.3 C.11.2.1), or the first VOI lookup table where there is no window. Without one that shows
    anything (see `is_useful`), grey runs from LOW_PERCENTILE to HIGH_PERCENTILE of the values.
    MONOCHROME1 is inverted. Declared padding is black, if it leaves a picture.

    Args:
        source: path, open binary file or content of a DICOM file.
        long_side: pixels of the longer side wanted, 1 or more. The aspect is kept; an image that
            is smaller already keeps its size.
        full_decode: decode at full resolution, and average areas in one step, even where a lower
            resolution, or halving, would do.

    Raises:
        UnreadableDicom: the file is not DICOM, or does not hold one grey image we can decode.
    """
    if long_side < 1:
        raise ValueError(f"long_side must be at least 1 pixel, not {long_side}")
    try:
        silence()
        with open_content(source) as content:
            return _read(content, long_side, full_decode)
    except UnreadableDicom as error:
        name = str(source) if isinstance(source, Path) else None
        raise UnreadableDicom(error.reason, name) from None


def read_patient(source: Path) -> str | None:
    """`Description.patient` without the pixels; None where the header cannot be read."""
    try:
        silence()
        with open_content(source) as content:
            return read_patient_hash(content)
    except UnreadableDicom:
        return None


def silence() -> None:
    """Have no warnings of the libraries that read files: for good, where somebody took it back.

    Not for each file: threads share the filters, and one that ends would give back the others'.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _read(content: Content, long_side: int, full_decode: bool) -> Mammogram:
    header, dataset = read_header(content)
    stored_long_side = max(header.width, header.height)
    scale = min(1.0, long_side / stored_long_side)
    size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
    smallest = stored_long_side if full_decode else max(size)
    stored, sampled = decode(header, dataset, content, smallest)
    description = header.description
    ignored = description.ignored
    padding = _find_padding(header, stored)
    if padding is not None:
        inside = stored[~padding]
        if inside.size < SMALLEST_BREAST * stored.size or inside.min() == inside.max():
            padding, ignored = None, (*ignored, PADDING)  # it leaves no picture, so it is wrong
        else:
            # Padding often lies at the far end of the range: as the image's own darkest value it
            # leaves no seam when areas are averaged.
            black = inside.min() if _black_is_low(header) else inside.max()
            stored = np.where(padding, black, stored)
            sampled = sample(stored)
    stored = downscale(stored, size)
    if stored.min() == stored.max():
        raise UnreadableDicom("all its pixels have one value: there is no image")
    padding = None if padding is None else downscale(padding.view(np.uint8), size).view(bool)
    shown, of_no_use = _apply_grey_scale(header, stored, padding)
    refuse_masks(sampled, lossy=description.transfer_syntax in LOSSY)
    window = None if WINDOW in of_no_use else header.window
    width = None if window is None else window[1] / abs(header.slope)
    refuse_flat_fields(stored, _list_unexposed_values(header), width)
    return Mammogram(
        pixels=shown if description.photometric == "MONOCHROME2" else 255 - shown,
        stored_width=header.width,
        stored_height=header.height,
        description=replace(description, ignored=(*ignored, *of_no_use)),
    )


def _find_padding(header: Header, stored: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Where the header declares that there is no image (PS3.3 C.7.5.1.1.2); None if nowhere."""
    if header.padding is None:
        return None
    low, high = sorted(_convert_padding_value(value, stored.dtype) for value in header.padding)
    padding = (stored >= low) & (stored <= high)
    white = (low > stored.mean()) == _black_is_low(header)
    if white and header.description.transfer_syntax in LOSSY:
        # The encoding comes near the value only, and smears the border; at the black end no matter.
        near = 2 ** max(0, header.bits_stored - 8)
        padding |= (stored >= low - near) & (stored <= high + near)
        solid = cv2.erode(padding.view(np.uint8), _square_kernel(SMEARED // 2))
        padding |= cv2.dilate(solid, _square_kernel(SMEARED + SMEARED // 2)).view(bool)
    return padding if padding.any() else None


def _list_unexposed_values(header: Header) -> set[float]:
    """Stored values of no exposure, or of the highest that there can be.

    These are both ends of what the bits hold, and the value that the rescale makes 0.
    """
    low = -(2 ** (header.bits_stored - 1)) if header.signed else 0
    return {low, low + 2**header.bits_stored - 1, -header.intercept / header.slope}


def _black_is_low(header: Header) -> bool:
    """Whether low stored values are shown black: a slope or a table may turn them round."""
    falls = header.slope < 0
    if header.window is None and header.voi_lut is not None:
        falls ^= bool(header.voi_lut.grey[0] > header.voi_lut.grey[-1])
    return (header.description.photometric == "MONOCHROME2") != falls


def _square_kernel(reach: int) -> NDArray[np.uint8]:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def _convert_padding_value(value: int, kind: np.dtype[np.integer]) -> int:
    """Give a padding value the sign of the pixels' type.

    A few machines write the padding of signed pixels as unsigned, or the other way round.
    """
    limits, span = np.iinfo(kind), 2 ** (8 * kind.itemsize)
    return (value - limits.min) % span + limits.min if abs(value) < span else value


def _apply_grey_scale(
    header: Header, stored: NDArray[np.integer], padding: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Apply the modality rescale and the VOI window or table.

    Returns:
        (height, width) of 0..255, not yet inverted for MONOCHROME1; and which of WINDOW and TABLE
        were there and could not be used.
    """
    of_no_use: tuple[str, ...] = ()
    if header.window is not None:
        window = header.window
        shown = _apply_by_table(header, stored, lambda values: apply_window(values, *window))
        if is_useful(stored, shown, padding):
            return shown, of_no_use
        of_no_use = (WINDOW,)
    if header.voi_lut is not None:
        voi_lut = header.voi_lut
        shown = _apply_by_table(header, stored, lambda values: apply_voi_lut(values, voi_lut))
        if is_useful(stored, shown, padding):
            return shown, of_no_use
        of_no_use = *of_no_use, TABLE
    values = _rescale(header, stored)
    inside = values if padding is None or padding.all() else values[~padding]
    low, high = np.percentile(inside, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        raise UnreadableDicom("nearly all its pixels have one value: there is no image")
    return to_grey((values - low) / (high - low)), of_no_use


def _apply_by_table(
    header: Header,
    stored: NDArray[np.integer],
    shown: Callable[[NDArray[np.float32]], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """The grey of each value, worked out once for all pixels that have it."""
    values = np.arange(int(stored.min()), int(stored.max()) + 1, dtype=stored.dtype)
    index_type = f"u{stored.itemsize}"  # those of negative values are the upper half
    table = np.zeros(1 << 8 * stored.itemsize, np.uint8)
    table[values.view(index_type)] = shown(_rescale(header, values))
    return np.asarray(cv2.LUT(stored.view(index_type), table), np.uint8)


def _rescale(header: Header, stored: NDArray[np.integer]) -> NDArray[np.float32]:
    return np.asarray(stored * np.float32(header.slope) + np.float32(header.intercept), np.float32)
