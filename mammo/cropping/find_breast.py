"""Where the breast is: the region of interest that the classifier sees, and its cutting out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from mammo.base.settings import Crop
from mammo.detector.detection import Detection
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import Gray

FoundBy = Literal["detector", "mask", "whole"]


@dataclass(frozen=True)
class Roi:
    """A box of whole pixels inside the image, never empty, and who found it."""

    box: Box
    found_by: FoundBy
    confidence: float | None  # of the detector, in [0, 1]; None if it was not the one


class Finder(Protocol):
    """A detector, whatever computes it."""

    def find(self, images: Sequence[np.ndarray]) -> list[Detection | None]:
        """The best box in each image (uint8, HxW), or None where there is none."""
        ...


def cut_breast(detector: Finder, image: Gray, settings: Crop) -> tuple[Roi, Gray]:
    """Find the breast in a preprocessed image, (H, W), and cut it out.

    Returns:
        Where it is, and that part of the image: (h, w), a view.
    """
    roi = find_roi(detector, image, settings)
    box = roi.box
    return roi, image[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]


def find_roi(detector: Finder, image: Gray, settings: Crop) -> Roi:
    """Find the breast in a preprocessed image, (H, W).

    By the detector if it is sure enough, else by the breast mask, else the whole image: a
    woman is never dropped because her breast was not recognised.
    """
    height, width = image.shape
    [detection] = detector.find([image])
    if detection is not None and detection.confidence >= settings.confidence:
        return Roi(
            _widen(detection.box, settings.margin, width, height),
            "detector",
            detection.confidence,
        )
    masked = find_breast_box(image)
    if masked is not None:
        return Roi(_widen(masked, settings.margin, width, height), "mask", None)
    return Roi(Box(0, 0, width, height), "whole", None)


def _widen(box: Box, margin: float, width: int, height: int) -> Box:
    """The box with `margin` times its longer side on each side, in whole pixels of the image."""
    grown = box.grow(margin * max(box.width, box.height)).clip(width, height)
    return Box(math.floor(grown.x1), math.floor(grown.y1), math.ceil(grown.x2), math.ceil(grown.y2))
