"""A grey image as a PNG, in two thirds of the time that OpenCV takes.

OpenCV and Pillow compress by zlib; libdeflate's fastest level takes two thirds of the time of
zlib's, and leaves a mammogram a fifth larger.
"""

import struct
import zlib

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _GREY, _UP = 8, 0, 2  # depth, colour type and filter (ISO/IEC 15948, 11.2.2 and 9.2)


def gray_png(pixels: NDArray[np.uint8]) -> bytes:
    """Compress an image, (height, width); equal pixels are equal bytes."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _BITS, _GREY, 0, 0, 0)
    # A byte that names the filter, then each pixel less the one above it.
    lines = np.empty((height, 1 + width), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=lines[1:, 1:])
    compressed = bytes(imagecodecs.deflate_encode(lines, level=1))  # type: ignore[arg-type]
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", compressed), _chunk(b"IEND", b""))
    return b"".join((_SIGNATURE, *chunks))


def _chunk(name: bytes, content: bytes) -> bytes:
    """Length, name, content and checksum (ISO/IEC 15948, 5.3)."""
    checksum = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
