"""From the coarse grid of Grad-CAM to a map of the breast, and the hot region in it.

This module imports no torch.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.base.settings import Classifier as Settings
from mammo.explanation.overlay import Heat
from mammo.imaging.geometry import Placement

REGION_SHARE = 0.5
"""Of the highest heat: what has at least as much, around the peak, is the hot region."""

_SMALLEST = 1e-7  # pytorch-grad-cam's, against division by zero
_FINEST = 1.0  # pixels: an outline that is nearer to the region's edge would only have more corners


def spread_heat(
    coarse: NDArray[Any], shape: tuple[int, ...], placement: Placement, settings: Settings
) -> Heat:
    """Spread the weighted sum of the feature map over the breast, as pytorch-grad-cam does.

    Args:
        coarse: (h, w), 0 or more.
        shape: of the breast's image, (H, W).
        placement: of that image in the network's input.
        settings: those the model was made with; they give its input size.

    Returns:
        (H, W) in [0, 1]. The maximum is 1, or the map is 0 throughout.
    """
    heat = _stretch(cv2.resize(_stretch(coarse), (settings.image_width, settings.image_height)))
    part = heat[: placement.height, : placement.width]  # the rest of the input is padding
    height, width = shape
    full = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    highest = full.max()
    return np.asarray(full / highest if highest > 0 else full, np.float32)


def _stretch(heat: NDArray[Any]) -> Heat:
    """Stretch values to 0..1, as pytorch-grad-cam does."""
    heat = heat - heat.min()
    return np.asarray(heat / (_SMALLEST + heat.max()), np.float32)


def outline_region(heat: Heat, share: float = REGION_SHARE) -> list[tuple[float, float]]:
    """Outline the connected region around the maximum that has at least `share` of it.

    Args:
        heat: (H, W) in [0, 1], not 0 throughout.
        share: in (0, 1].

    Returns:
        A closed polygon, three corners or more, (x, y) in pixels of the map.
    """
    top, left = np.unravel_index(int(heat.argmax()), heat.shape)
    hot = (heat >= heat.max() * share).astype(np.uint8)
    _, labels = cv2.connectedComponents(hot)
    region = (labels == labels[top, left]).astype(np.uint8)
    (contour, *_), _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = cv2.approxPolyDP(contour, _FINEST, closed=True)[:, 0]
    if len(corners) >= 3:
        # OpenCV's corners are pixels, whose middle is meant.
        return [(float(x) + 0.5, float(y) + 0.5) for x, y in corners]
    x, y, width, height = cv2.boundingRect(region)
    box = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return [(float(x), float(y)) for x, y in box]
