"""JPEG 2000, high-throughput too, by Pillow: it can leave out the finest levels of the wavelet."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.utils import get_j2k_parameters

from mammo.dicom.errors import DamagedStream, UnreadableDicom
from mammo.dicom.header import Header
from mammo.dicom.picture import may_be_mask, sample
from mammo.dicom.rows import OTHER_IMAGE, damage_on, extend_sign

_PILLOW_ERRORS = (
    OSError,  # its word for whatever OpenJPEG says, and for what is no JPEG 2000
    SyntaxError,  # boxes without the one that is needed
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged pixel data, as its source shows and the fuzzer found."""


def decode_and_sample_jpeg_2000(
    header: Header, frame: bytes, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Decode as `_decode_jpeg_2000` does, and take a sample.

    The sample is of a second decoding, at full size, if the image may be a mask, or has 8 bits, as
    few films have. That takes about four times as long.
    """
    pixels = _decode_jpeg_2000(header, frame, smallest)
    sampled = sample(pixels)
    halved_by_it = pixels.shape != (header.height, header.width)
    if halved_by_it and (pixels.itemsize == 1 or may_be_mask(sampled)):
        sampled = sample(_decode_jpeg_2000(header, frame, max(header.height, header.width)))
    return pixels, sampled


def _decode_jpeg_2000(header: Header, frame: bytes, smallest: int) -> NDArray[np.integer]:
    """Pillow's decoding, with as many resolution levels left out as `smallest` allows."""
    stream = get_j2k_parameters(frame)
    if "precision" not in stream:
        raise DamagedStream("not a JPEG 2000 stream")
    precision, signed = stream["precision"], stream["is_signed"]
    if precision > 16:
        raise UnreadableDicom(OTHER_IMAGE)
    reduce = 0
    # What is padding must be seen at full size: the levels left out would mix it into the breast.
    while header.padding is None and max(header.width, header.height) >> (reduce + 1) >= smallest:
        reduce += 1
    while True:
        with damage_on(*_PILLOW_ERRORS):
            image = Image.open(io.BytesIO(frame), formats=("JPEG2000",))
        if image.size != (header.width, header.height) or image.mode not in ("L", "I;16"):
            raise UnreadableDicom(OTHER_IMAGE)
        image.reduce = reduce  # type: ignore[method-assign, assignment]
        try:
            image.load()
            break
        except _PILLOW_ERRORS:
            # Fewer levels were encoded than we would leave out, or the stream is damaged.
            if reduce == 0:
                raise DamagedStream("damaged JPEG 2000") from None
            reduce -= 1
    pixels = np.array(image)
    # Pillow scales N bits up to 8 or 16 and lifts signed values by half the range.
    unused = 8 * pixels.itemsize - precision
    pixels >>= unused
    if signed:
        pixels -= pixels.dtype.type(1 << (precision - 1))  # wraps to two's complement
    # The header decides what the bits mean, whatever sign the stream claims.
    return extend_sign(pixels, header.signed, unused) if signed or header.signed else pixels
