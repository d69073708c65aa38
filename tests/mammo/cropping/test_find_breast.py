"""The order in which a breast is looked for, and the box that comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.base.settings import Crop
from mammo.cropping.find_breast import cut_breast, find_roi
from mammo.detector.detection import Detection
from mammo.detector.detector import Detector
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box
from tests.support.half_ellipses import half_ellipse

SETTINGS = Crop(confidence=0.3, margin=0.1)


@dataclass(frozen=True)
class Says:
    """A detector that finds what it was told."""

    detection: Detection | None

    def find(self, images: Sequence[np.ndarray]) -> list[Detection | None]:
        return [self.detection for _ in images]


def says(detection: Detection | None) -> Detector:
    return cast(Detector, Says(detection))


def test_a_sure_detector_is_believed_and_its_box_grows_by_the_margin() -> None:
    image, _ = half_ellipse(0)
    roi = find_roi(says(Detection(Box(20, 20, 40, 30), 0.3)), image, SETTINGS)
    assert (roi.found_by, roi.confidence) == ("detector", 0.3)
    assert roi.box == Box(18, 18, 42, 32)  # a tenth of the longer side, 20


def test_below_the_confidence_the_mask_is_asked() -> None:
    image, _ = half_ellipse(0)
    roi = find_roi(says(Detection(Box(20, 20, 40, 30), 0.29)), image, SETTINGS)
    assert (roi.found_by, roi.confidence) == ("mask", None)
    masked = find_breast_box(image)
    assert masked is not None
    height, width = image.shape
    grown = masked.grow(0.1 * max(masked.width, masked.height)).clip(width, height)
    assert roi.box.contains(grown.x1, grown.y1)
    assert roi.box.iou(grown) > 0.9


def test_without_a_detection_the_mask_finds_the_breast() -> None:
    image, box = half_ellipse(1)
    roi = find_roi(says(None), image, Crop(confidence=0.3, margin=0))
    assert roi.found_by == "mask"
    assert roi.box.iou(box) > 0.85


@pytest.mark.parametrize("grey", [0, 90])
def test_an_image_without_a_breast_is_kept_whole(grey: int) -> None:
    roi = find_roi(says(None), np.full((30, 20), grey, np.uint8), SETTINGS)
    assert (roi.found_by, roi.box, roi.confidence) == ("whole", Box(0, 0, 20, 30), None)


@given(
    x1=st.floats(0, 63),
    y1=st.floats(0, 79),
    width=st.floats(0.01, 64),
    height=st.floats(0.01, 80),
    margin=st.floats(0, 1),
)
def test_the_box_is_whole_pixels_of_the_image_around_what_was_found(
    x1: float, y1: float, width: float, height: float, margin: float
) -> None:
    image = np.zeros((80, 64), np.uint8)
    found = Box(x1, y1, x1 + width, y1 + height).clip(64, 80)
    settings = Crop(confidence=0, margin=margin)
    roi, breast = cut_breast(says(Detection(found, 1.0)), image, settings)
    box = roi.box
    assert all(float(side).is_integer() for side in (box.x1, box.y1, box.x2, box.y2))
    assert 0 <= box.x1 <= found.x1 < found.x2 <= box.x2 <= 64
    assert 0 <= box.y1 <= found.y1 < found.y2 <= box.y2 <= 80
    assert breast.shape == (box.height, box.width)


def test_what_is_cut_out_is_the_pixels_of_the_box() -> None:
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    finder, settings = says(Detection(Box(1, 2, 3, 4), 1.0)), Crop(confidence=0, margin=0)
    roi, breast = cut_breast(finder, image, settings)
    assert roi == find_roi(finder, image, settings)
    assert breast.tolist() == [[11, 12], [16, 17]]
