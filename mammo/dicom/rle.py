"""DICOM's run-length encoding, by imagecodecs (PS3.5 G)."""

import struct

import imagecodecs
import numpy as np

from mammo.dicom.errors import DamagedStream, UnreadableDicom
from mammo.dicom.header import Header
from mammo.dicom.rows import IMAGECODECS_ERRORS, OTHER_IMAGE, Rows, damage_on, slice_rows


def decode_rle(header: Header, frame: memoryview) -> Rows:
    """RLE's byte planes (PS3.5 G); imagecodecs refuses what would run past the image."""
    planes = header.bits_allocated // 8
    if bytes(frame[:4]) != struct.pack("<I", planes):
        raise UnreadableDicom(OTHER_IMAGE)
    values = bytearray(header.height * header.width * planes)
    try:
        decoded = _decode_rle_frame(frame, planes, values)
    except DamagedStream:
        decoded = _decode_rle_frame(_strip_zeros(frame, planes, header), planes, values)
    if len(decoded) != len(values):
        raise DamagedStream("RLE segments that end before the image does")
    return slice_rows(np.frombuffer(values, f"<u{planes}").reshape(header.height, header.width))


def _decode_rle_frame(frame: memoryview, planes: int, values: bytearray) -> bytes | bytearray:
    with damage_on(*IMAGECODECS_ERRORS):
        return imagecodecs.dicomrle_decode(frame, f"<u{planes}", out=values)  # type: ignore[arg-type]


def _strip_zeros(frame: memoryview, planes: int, header: Header) -> memoryview:
    """The frame up to the end of its last plane, if nothing but zeros follows.

    RLE has no mark of an end, so what else follows may belong to a larger image.

    Raises:
        DamagedStream: something else follows.
    """
    (at,) = struct.unpack_from("<I", bytes(frame[:64]).ljust(64, b"\0"), 4 * planes)
    values, wanted = 0, header.height * header.width
    while values < wanted and at + 1 < len(frame):
        head = frame[at]  # PS3.5 G.3.2
        run = head > 128
        values += 0 if head == 128 else 257 - head if run else head + 1
        at += 1 if head == 128 else 2 if run else head + 2
    if values != wanted or bytes(frame[at:]).strip(b"\0"):
        raise DamagedStream("RLE segments that run past the image")
    return frame[:at]
