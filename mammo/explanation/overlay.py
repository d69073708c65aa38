"""The heat as a picture, and its peak, whatever computed it: this module imports no torch."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import Gray

Heat = NDArray[np.float32]
"""What speaks for a positive at each pixel of an ROI: (h, w) in [0, 1]."""

HEAT_OPACITY = 0.55  # at the heatmap's maximum, so that the breast stays visible below
PEAK_SHARE = 0.9
LESION_COLOUR = (90, 255, 160)  # RGB: not in the heat's colour map
PEAK_COLOUR = (255, 255, 255)


def draw_overlay(
    roi: Gray,
    heat: Heat,
    lesions: Sequence[Box] = (),
    peak_at: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Draw the heat over the image; the hotter, the more opaque, so that cold parts stay gray.

    Args:
        roi: (H, W) of 0..255.
        heat: (H, W) in [0, 1].
        lesions: outlined, in pixels of the ROI.
        peak_at: (x, y) marked with a cross, in pixels of the ROI.

    Returns:
        (H, W, 3) RGB of 0..255.
    """
    colours = cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    colours = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB).astype(np.float32)
    opacity = HEAT_OPACITY * heat[..., None]
    mixed = roi[..., None] * (1 - opacity) + colours * opacity
    picture = np.ascontiguousarray(mixed.round().astype(np.uint8))
    stroke = max(1, round(roi.shape[0] / 320))
    for lesion in lesions:
        first = round(lesion.x1), round(lesion.y1)
        last = round(lesion.x2) - 1, round(lesion.y2) - 1
        cv2.rectangle(picture, first, last, LESION_COLOUR, stroke)
    if peak_at is not None:
        centre = int(peak_at[0]), int(peak_at[1])
        size = 10 * stroke
        cv2.drawMarker(picture, centre, PEAK_COLOUR, cv2.MARKER_CROSS, size, stroke, cv2.LINE_AA)
    return picture


def find_peak(heat: Heat) -> tuple[float, float] | None:
    """Find the middle (x, y) of the hottest spot, in pixels; None if the map is 0 throughout.

    A lesion raises several cells of the coarse grid that the map is enlarged from, almost equally
    where an activation saturates: noise decides which of them is the highest, and it may lie at the
    edge of the spot. So the spot is the connected region around the maximum with at least
    PEAK_SHARE of it.
    """
    if heat.max() <= 0:
        return None
    top, left = np.unravel_index(int(heat.argmax()), heat.shape)
    hottest = (heat >= heat.max() * PEAK_SHARE).astype(np.uint8)
    _, labels, _, centres = cv2.connectedComponentsWithStats(hottest)
    x, y = centres[labels[top, left]]
    return float(x), float(y)
