"""Random changes of a training picture: drawn as numbers, then applied by one of two renderers.

What a picture undergoes is a `Change`, drawn on the CPU whatever computes. `render` applies it to
one picture with OpenCV, in the process that loads it; `render_batch` to a whole batch with torch,
on the device that the batch is on. Both follow OpenCV's rules, and give the same grey levels but
for rounding.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from mammo.base.settings import Augment
from mammo.imaging.gray_images import Gray


@dataclass(frozen=True)
class Change:
    """What a picture undergoes: first it is moved, then its grey levels change.

    Attributes:
        matrix: (2, 3) float64; it takes a pixel's (x, y, 1) to its new position. What comes from
            outside of the picture is black.
        contrast: times the distance of a grey level from their mean in the moved picture.
        brightness: times the grey level, after that.
    """

    matrix: NDArray[np.float64]
    contrast: float
    brightness: float

    def to_row(self) -> NDArray[np.float64]:
        """The matrix by rows, contrast and brightness: (8,), as `render_batch` takes them."""
        return np.array([*self.matrix.ravel(), self.contrast, self.brightness])


def draw_change(height: int, width: int, settings: Augment, rng: np.random.Generator) -> Change:
    """Draw how a picture is flipped, turned, scaled and moved, and how its grey levels change.

    Every number is drawn whatever the settings, so switching one change off leaves the others.
    """
    flip_x, flip_y = rng.random(2) < (settings.horizontal_flip, settings.vertical_flip)
    angle, zoom, shift_x, shift_y, brightness, contrast = rng.uniform(-1, 1, 6)
    centre = (width - 1) / 2, (height - 1) / 2
    turn = cv2.getRotationMatrix2D(centre, angle * settings.rotation, 1 + zoom * settings.zoom)
    turn[:, 2] += shift_x * settings.shift * width, shift_y * settings.shift * height
    flip = np.array(
        [
            [-1.0 if flip_x else 1.0, 0.0, width - 1.0 if flip_x else 0.0],
            [0.0, -1.0 if flip_y else 1.0, height - 1.0 if flip_y else 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    return Change(
        matrix=turn @ flip,
        contrast=1 + contrast * settings.contrast,
        brightness=1 + brightness * settings.brightness,
    )


def render(picture: Gray, change: Change) -> Gray:
    """Apply a change to one picture, (H, W), with OpenCV."""
    height, width = picture.shape
    moved = cv2.warpAffine(picture, change.matrix, (width, height), flags=cv2.INTER_LINEAR)
    levels = np.arange(256.0)
    levels = (levels - moved.mean()) * change.contrast + moved.mean()
    levels *= change.brightness
    return np.asarray(cv2.LUT(moved, levels.round().clip(0, 255).astype(np.uint8)), np.uint8)


def render_batch(pictures: Tensor, changes: Tensor) -> Tensor:
    """Apply a change to each picture of a batch, with torch.

    Only sums, products and whole numbers are computed, each rounded by itself, so CPU and GPU give
    the same.

    Args:
        pictures: (N, H, W) uint8.
        changes: (N, 8) float64, on the same device: a `Change.to_row` for each.

    Returns:
        (N, H, W) uint8, on that device.
    """
    moved = _move(pictures, changes[:, :6])
    contrast, brightness = changes[:, 6:7], changes[:, 7:8]
    mean = moved.sum((1, 2), dtype=torch.int64).double()[:, None] / moved[0].numel()
    levels = torch.arange(256, dtype=torch.float64, device=pictures.device)[None]
    levels = ((levels - mean) * contrast + mean) * brightness
    table = levels.round().clamp(0, 255).to(torch.uint8)
    return table.gather(1, moved.flatten(1).long()).view_as(moved)


def _move(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Move pictures as cv2.warpAffine does: bilinear, in float32, black outside.

    Args:
        pictures: (N, H, W) uint8.
        matrices: (N, 6) float64, each by rows.
    """
    count, height, width = pictures.shape
    # From each new pixel back to where it came from: x = a x' + b y' + c, y = d x' + e y' + f.
    m0, m1, m2, m3, m4, m5 = matrices.unbind(1)
    scale = 1 / (m0 * m4 - m1 * m3)
    a, b, d, e = m4 * scale, -m1 * scale, -m3 * scale, m0 * scale
    c, f = -a * m2 - b * m5, -d * m2 - e * m5
    a, b, c, d, e, f = (x.float()[:, None, None] for x in (a, b, c, d, e, f))
    across = torch.arange(width, dtype=torch.float32, device=pictures.device)[None, None, :]
    down = torch.arange(height, dtype=torch.float32, device=pictures.device)[None, :, None]
    x = across * a + (down * b + c)
    y = across * d + (down * e + f)
    left, top = x.floor(), y.floor()
    x, y = x - left, y - top
    # Two black pixels all around, for the four neighbours of any point outside.
    rim = 2
    framed = pad(pictures, (rim, rim, rim, rim)).flatten(1)
    row = width + 2 * rim
    column = left.clamp(-rim, width).long() + rim
    at = (column + (top.clamp(-rim, height).long() + rim) * row).flatten(1)

    def look(offset: int) -> Tensor:
        return framed.gather(1, at + offset).view(count, height, width).float()

    upper, lower = look(0), look(row)
    upper = upper + x * (look(1) - upper)
    lower = lower + x * (look(row + 1) - lower)
    return (upper + y * (lower - upper)).round().to(torch.uint8)
