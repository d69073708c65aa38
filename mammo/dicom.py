"""A mammogram's DICOM file, as a radiologist would see it, at the size asked for.

Scaling down is by area averaging of the stored values; the grey-scale transformations are then
applied to the small image, so no floating-point copy of a full-size image is ever made.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.dicom_header import Header, UnreadableDicom, read_header
from mammo.dicom_pixels import decode

__all__ = ["Mammogram", "UnreadableDicom", "read_mammogram"]

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.8
"""What becomes black and white without a window. Never the extremes: a label, a dead pixel or the
overshoot of a lossy wavelet would move them."""

# It quotes what it stumbles over, and that may be a name or a date.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Mammogram:
    """One view of one breast."""

    pixels: NDArray[np.uint8]  # (height, width), black to white as on a viewing station
    stored_width: int  # pixels of the matrix in the file
    stored_height: int
    laterality: str | None  # L or R
    view: str | None  # a key of dicom_header.VIEWS
    transfer_syntax: str  # UID
    photometric: str  # MONOCHROME1 or MONOCHROME2


def read_mammogram(
    source: Path | BinaryIO | bytes, long_side: int, full_decode: bool = False
) -> Mammogram:
    """Decode a mammogram and apply its grey-scale transformations.

    The modality rescale and the first VOI window are applied (LINEAR, LINEAR_EXACT or SIGMOID,
    PS3.3 C.11.2.1). Without a window that shows anything, grey runs from LOW_PERCENTILE to
    HIGH_PERCENTILE of the values. MONOCHROME1 is inverted. Declared padding is black.

    Args:
        source: path, open binary file or content of a DICOM file.
        long_side: pixels of the longer side wanted, 1 or more. The aspect is kept; an image that
            is smaller already keeps its size.
        full_decode: decode JPEG 2000 at full resolution even where a lower one would do.

    Raises:
        UnreadableDicom: the file is not DICOM, or does not hold one grey image we can decode.
    """
    if long_side < 1:
        raise ValueError(f"long_side must be at least 1 pixel, not {long_side}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values
            return _read(_content(source), long_side, full_decode)
    except UnreadableDicom as error:
        name = str(source) if isinstance(source, Path) else None
        raise UnreadableDicom(error.reason, name) from None


def _content(source: Path | BinaryIO | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, Path):
        return source.read()
    try:
        return source.read_bytes()
    except FileNotFoundError:
        raise UnreadableDicom("there is no such file") from None
    except OSError as error:
        raise UnreadableDicom(f"the file cannot be opened ({error.strerror})") from None


def _read(content: bytes, long_side: int, full_decode: bool) -> Mammogram:
    header, dataset = read_header(content)
    stored_long_side = max(header.width, header.height)
    scale = min(1.0, long_side / stored_long_side)
    size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
    stored = decode(header, dataset, stored_long_side if full_decode else max(size))
    blank_is_low = header.photometric == "MONOCHROME2"
    padding = _padding(header, stored)
    if padding is not None:
        # Padding often lies at the far end of the range: as the image's own darkest value it
        # leaves no seam when areas are averaged.
        inside = stored[~padding]
        if inside.size == 0:
            raise UnreadableDicom("all its pixels are padding: there is no image")
        stored = np.where(padding, inside.min() if blank_is_low else inside.max(), stored)
    if stored.min() == stored.max():
        raise UnreadableDicom("all its pixels have one value: there is no image")
    if stored.shape[::-1] != size:
        stored = _scaled(stored, size)
        padding = None if padding is None else _scaled(padding.view(np.uint8), size).view(bool)
    grey = _display(header, stored, padding)
    return Mammogram(
        pixels=grey if blank_is_low else 255 - grey,
        stored_width=header.width,
        stored_height=header.height,
        laterality=header.laterality,
        view=header.view,
        transfer_syntax=header.transfer_syntax,
        photometric=header.photometric,
    )


def _padding(header: Header, stored: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Where the header declares that there is no image (PS3.3 C.7.5.1.1.2); None if nowhere."""
    if header.padding is None:
        return None
    low, high = header.padding
    padding = (stored >= low) & (stored <= high)
    return padding if padding.any() else None


def _scaled(pixels: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.integer]:
    if pixels.dtype == np.int8:  # the one type that OpenCV does not resize
        pixels = pixels.astype(np.int16)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def _display(
    header: Header, stored: NDArray[np.integer], padding: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Modality rescale and VOI window: stored values to 0..255, still in the file's own sense."""
    values = stored * np.float32(header.slope) + np.float32(header.intercept)
    if header.window is not None:
        grey = _windowed(values, *header.window)
        if grey.min() < grey.max():
            return grey
    # A window that leaves everything black or white is a wrong one.
    seen = values if padding is None else values[~padding]
    low, high = np.percentile(seen, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        raise UnreadableDicom("nearly all its pixels have one value: there is no image")
    return _grey((values - low) / (high - low))


def _windowed(
    values: NDArray[np.float32], center: float, width: float, function: str
) -> NDArray[np.uint8]:
    """A VOI window by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # infinity is the right answer: black
            return _grey(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR_EXACT":
        return _grey((values - center) / width + 0.5)
    if width == 1:
        return _grey((values > center - 0.5).astype(np.float32))
    return _grey((values - (center - 0.5)) / (width - 1) + 0.5)


def _grey(fraction: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(np.clip(fraction, 0, 1) * 255).astype(np.uint8)
