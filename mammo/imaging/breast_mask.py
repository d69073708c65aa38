"""Where the breast is in a mammogram, by what the image shows: side, mask and box.

The header is not used: tags that contradict the image are common enough to matter.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.imaging.downscale import downscale, halve
from mammo.imaging.geometry import Box

WORKING_SIDE = 230
"""The breast is looked for in as many pixels as a square of this side has, at most.

Not a longer side of so many: in a narrow picture the breast would be no wider than _STROKE.
"""

SMALLEST = 0.01
"""Share of the picture that a breast takes up at least; a lead marker takes up less."""

_STROKE = 9
"""Pixels at that size. Film edges and the strokes of burnt-in labels are thinner than this."""

_BACKGROUND = 5
"""Percentile of the grey that is background: a window may leave it well above black."""


_PAPER = 0.5
"""Share of a page of text that has one grey, at least."""

_INK = 16
"""Greys that differ from the paper by more are ink."""


def is_page(pixels: NDArray[np.uint8]) -> bool:
    """Whether it is a page of text, black on white or white on black.

    The greater part of a page has one grey at an end of the range, and nothing on it is solid.

    A breast is, even in a film whose greys are the wrong way round: in films of mini-MIAS and
    CBIS-DDSM a tenth of the picture or more is solid, in text nothing.

    Args:
        pixels: (height, width).
    """
    times = np.bincount(pixels.ravel(), minlength=256)
    paper = int(times.argmax())
    if 64 <= paper < 192 or times[max(0, paper - 2) : paper + 3].sum() < _PAPER * pixels.size:
        return False
    # Noise must not make holes; lines of text must not grow together.
    smooth = np.asarray(cv2.GaussianBlur(pixels, (5, 5), 0), np.uint8)
    ink = (cv2.absdiff(smooth, np.full_like(smooth, paper)) > _INK).view(np.uint8)
    longest = max(pixels.shape)
    side = max(longest // 64, min(longest // 10, 13)) + 1  # strokes of a heading; a letter
    solid = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    return bool(solid.mean() < SMALLEST / 2)


def turn_left(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.uint8], bool]:
    """Turn a mammogram so that the breast hangs from the left edge.

    The chest wall is where the breast is cut off by the image's edge and where it is tallest. An
    image without a breast stays as it is.

    Args:
        pixels: (height, width).
        mask: `segment_small` of it, if it was made before.

    Returns:
        The image, mirrored or not, and whether it was mirrored.
    """
    mask = segment_small(pixels) if mask is None else mask
    columns = mask.sum(axis=0, dtype=float)
    if not columns.any():
        return pixels, False
    first, last = np.flatnonzero(columns)[[0, -1]]
    centre = np.average(np.arange(len(columns)), weights=columns)
    # Both terms lie in [-1, 1] and are positive for a breast on the left.
    taller = ((first + last) / 2 - centre) / max(last - first, 1) * 2
    cut_off = (columns[0] - columns[-1]) / mask.shape[0]
    if taller + cut_off >= 0:
        return pixels, False
    return np.asarray(cv2.flip(pixels, 1), np.uint8), True


def segment_breast(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The breast, with the pectoral muscle where it is seen, without labels and film edges.

    Args:
        pixels: (height, width).

    Returns:
        (height, width), one connected area with a smooth outline and no holes; empty where nothing
        stands out from the background.
    """
    mask = segment_small(pixels)
    if mask.shape == pixels.shape:
        return mask
    height, width = pixels.shape
    return cv2.resize(mask.astype(np.float32), (width, height)) > 0.5  # linear: no staircase


def find_breast_box(pixels: NDArray[np.uint8]) -> Box | None:
    """The smallest box around `segment_breast`, in whole pixels; None without a breast."""
    x, y, width, height = cv2.boundingRect(segment_breast(pixels).view(np.uint8))
    return Box(x, y, x + width, y + height) if width else None


def segment_small(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`segment_breast` at WORKING_SIDE, or at the image's own size if that is smaller."""
    height, width = pixels.shape
    scale = min(1.0, WORKING_SIDE / math.sqrt(height * width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    times = math.floor(math.log2(min(width / size[0], height / size[1])))
    small = downscale(halve(pixels, times), size)
    if small.min() == small.max():
        return np.zeros(small.shape, bool)
    # The square root draws fat and skin, which are dark, away from the background: Otsu's
    # threshold on the grey itself would part dense tissue from fat instead.
    smooth = np.asarray(cv2.GaussianBlur(small, (5, 5), 0), np.uint8)
    # Many times as fast as np.percentile, which sorts.
    darker = np.cumsum(cv2.calcHist([smooth], [0], None, [256], [0, 256]))
    background = np.searchsorted(darker, _BACKGROUND / 100 * smooth.size)
    roots = np.rint(np.sqrt(np.clip(smooth - np.float32(background), 0, None) * 255))
    _, bright = cv2.threshold(roots.astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_STROKE, _STROKE))
    # Outside counts as dark, so that a film's edge along the border is opened away as well.
    solid = cv2.erode(bright, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not solid.any():
        return np.zeros(small.shape, bool)
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_STROKE + 4, _STROKE + 4))
    return _largest(cv2.bitwise_and(cv2.dilate(_largest(solid), wide), bright)).astype(bool)


def _largest(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """The largest connected area of a mask that is not empty, its holes filled."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    return np.asarray(cv2.drawContours(np.zeros_like(mask), [largest], 0, 1, cv2.FILLED), np.uint8)
