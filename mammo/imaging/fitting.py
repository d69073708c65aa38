"""Fitting an image into a frame of another shape: scaled with its aspect kept, black beside it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.imaging.geometry import Placement


def place_in_frame(width: int, height: int, frame_width: int, frame_height: int) -> Placement:
    """Where an image is in a frame: at the top left, as large as the frame allows.

    Args:
        width: of the image, in pixels.
        height: of the image.
        frame_width: of the frame, in pixels.
        frame_height: of the frame.
    """
    scale = _scale(width, height, frame_width, frame_height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return Placement(width, height, inner_width, inner_height, flipped=False)


def fit_in_frame(
    image: NDArray[np.uint8], frame_width: int, frame_height: int
) -> tuple[NDArray[np.uint8], Placement]:
    """Scale an image to fit a frame, at its top left, black at the right or the bottom.

    Args:
        image: (height, width), of any size.
        frame_width: in pixels.
        frame_height: in pixels.

    Returns:
        The frame, (frame_height, frame_width), and where in it the image is.
    """
    height, width = image.shape
    placement = place_in_frame(width, height, frame_width, frame_height)
    smaller = _scale(width, height, frame_width, frame_height) < 1
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    frame = np.zeros((frame_height, frame_width), np.uint8)
    size = placement.width, placement.height
    frame[: size[1], : size[0]] = cv2.resize(image, size, interpolation=method)
    return frame, placement


def _scale(width: int, height: int, frame_width: int, frame_height: int) -> float:
    """Pixels of the frame for each pixel of the image."""
    return min(frame_height / height, frame_width / width)
