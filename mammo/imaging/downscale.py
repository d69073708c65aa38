"""Scaling down, by the means of areas."""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = TypeVar("Pixels", bound=np.integer)


def downscale(pixels: NDArray[Pixels], size: tuple[int, int]) -> NDArray[Pixels]:
    """Scale down by the means of areas, rounded.

    Args:
        pixels: (height, width), of 8 or 16 bits.
        size: width and height wanted, neither larger than there is.
    """
    if pixels.shape[::-1] == size:
        return pixels
    # Of these types OpenCV does not resize signed bytes.
    known = pixels.astype(np.int16) if pixels.dtype == np.int8 else pixels
    return np.asarray(cv2.resize(known, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def halve(pixels: NDArray[Pixels], times: int) -> NDArray[Pixels]:
    """Halve both sides so many times; odd numbers are rounded down.

    OpenCV halves several times as fast as it does anything else.
    """
    for _ in range(times):
        pixels = downscale(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2))
    return pixels
