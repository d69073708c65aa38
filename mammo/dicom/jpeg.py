"""JPEG and JPEG-LS: lossless JPEG by our own decoder, the others by imagecodecs."""

from dataclasses import replace

import imagecodecs
import numpy as np
from pydicom import uid

from mammo.dicom.errors import DamagedStream, UnreadableDicom
from mammo.dicom.header import Header
from mammo.dicom.jpeg_header import JpegHeading, read_jpeg_heading
from mammo.dicom.rows import IMAGECODECS_ERRORS, OTHER_IMAGE, Rows, damage_on, slice_rows

JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
_LOSSLESS_JPEG = {uid.JPEGLossless, uid.JPEGLosslessSV1}
JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, *_LOSSLESS_JPEG}

_END = b"\xff\xd9"  # of a JPEG or JPEG-LS stream


def decode_jpeg(header: Header, syntax: uid.UID, frame: memoryview) -> tuple[Rows, Header]:
    """Decode a JPEG or JPEG-LS stream, by our decoder or imagecodecs (libjpeg-turbo, CharLS).

    Returns:
        The rows, and the header with the number of bits that the stream has.
    """
    heading = read_jpeg_heading(frame)
    size = (header.width, header.height)
    if (heading.width, heading.height) != size or heading.components != 1:
        raise UnreadableDicom(OTHER_IMAGE)
    if not 1 <= heading.precision <= 16:
        raise UnreadableDicom(OTHER_IMAGE)
    frame = frame[: _find_end(frame, heading.scan)]
    allocated = max(header.bits_allocated, 8 if heading.precision <= 8 else 16)
    header = replace(header, bits_allocated=allocated, bits_stored=heading.precision)
    rows = _decode_lossless_jpeg(frame, heading) if syntax in _LOSSLESS_JPEG else None
    if rows is not None:
        return _narrow(rows, allocated), header
    by = imagecodecs.jpegls_decode if syntax in JPEG_LS else imagecodecs.jpeg_decode
    with damage_on(*IMAGECODECS_ERRORS):
        decoded = by(frame)  # type: ignore[arg-type]  # its stubs know no memoryview
    pixels = np.asarray(decoded)
    if pixels.shape != (header.height, header.width) or pixels.dtype.kind != "u":
        raise DamagedStream("decoded to another shape than its frame header says")
    return slice_rows(pixels.astype(f"u{allocated // 8}", copy=False)), header


def _find_end(frame: memoryview, scan: int) -> int:
    """Where a stream ends. What follows, padding or an archive's leavings, is none of its business.

    Within a scan the end's marker cannot occur: there 0xFF is followed by 0, or in JPEG-LS by a
    byte below 0x80 (T.81, B.1.1.5, and T.87, A.1).
    """
    tail = max(scan, len(frame) - 16)  # nearly always there, and there quickly found
    at = bytes(frame[tail:]).rfind(_END)
    if at < 0:
        tail = scan
        at = bytes(frame[tail:]).find(_END)
    if at < 0:
        raise DamagedStream("a JPEG stream without an end, which decoders would fill with grey")
    return tail + at + len(_END)


def _decode_lossless_jpeg(frame: memoryview, heading: JpegHeading) -> Rows | None:
    """Decode lossless JPEG, if it is of a kind that our decoder knows; else None.

    The decoder is imported late: that takes over a second, which only a process that meets such a
    film should wait.
    """
    from mammo.dicom.jpeg_lossless import lossless_rows

    return lossless_rows(frame, heading)


def _narrow(rows: Rows, allocated: int) -> Rows:
    """Values of 16 bits in the 8 or 16 bits that are allocated for them."""
    return rows if allocated == 16 else lambda top, end: rows(top, end).astype(np.uint8)
