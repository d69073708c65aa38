"""Reading the gray images that another stage wrote. A fault is one sentence."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.base.errors import UserError

Gray = NDArray[np.uint8]
"""A gray image: (h, w) of 0 (black) to 255 (white)."""


def read_gray(path: Path) -> Gray:
    """Read an 8-bit gray image file, (H, W).

    Raises:
        UserError: if it is missing or no image.
    """
    return decode_gray(read_file(path), path)


def read_file(path: Path) -> bytes:
    """Read a file that another stage wrote.

    Raises:
        UserError: if it is missing.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); run the stage that makes it again"
        ) from None


def decode_gray(content: bytes, path: Path) -> Gray:
    """The 8-bit gray image, (H, W), in the content of the file at `path`.

    Raises:
        UserError: if it is no image.
    """
    # Not cv2.imread: it says nothing of why, and prints a warning of its own.
    array = np.frombuffer(content, np.uint8)
    pixels = cv2.imdecode(array, cv2.IMREAD_GRAYSCALE) if array.size else None
    if pixels is None:
        raise UserError(f"{path}: is not an image; run the stage that makes it again")
    return np.asarray(pixels, np.uint8)
