"""What a detector says of an image, whatever computes it: this module imports no torch."""

from dataclasses import dataclass

from mammo.imaging.geometry import Box, Placement

LOWEST_CONFIDENCE = 0.001
"""Detections below this are not reported: ultralytics' own bound when it computes mAP."""


@dataclass(frozen=True)
class Detection:
    """A box in pixels of the image searched, and the network's confidence in it, in [0, 1]."""

    box: Box
    confidence: float


def box_in_square(box: Box, placement: Placement) -> Box:
    """A box of an image, in pixels of the square that `fit_in_frame` put the image into."""
    return placement.to_image(box).clip(placement.width, placement.height)


def box_in_image(box: Box, placement: Placement) -> Box:
    """A box of a square, in pixels of the image in it: the inverse of `box_in_square`."""
    return placement.to_stored(box.clip(placement.width, placement.height))
