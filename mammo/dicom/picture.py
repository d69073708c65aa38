"""What the pixels themselves tell against a header: it is no mammogram, or the window is not its.

Each question is put to a sample of the pixels, or to a thumbnail, which tell it as well as all.
"""

from collections.abc import Iterable
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mammo.dicom.errors import UnreadableDicom

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.8
"""What becomes black and white without a window. Never the extremes: a label, a dead pixel or the
overshoot of a lossy wavelet would move them."""

SMALLEST_BREAST = 0.005
"""Share of a picture that a breast takes up at least: half of what `breast` asks for."""

_SAMPLED = 256
"""Pixels of a sample's longer side, or up to twice as many."""

_NEAR, _FAR_AWAY = 1 / 8, 0.1
"""A lossy encoding carries a mask's pixels so far from its two values, of the distance between
them; and that share of the smaller part still farther. JPEG of a quality of 60 leaves 0.05 of it
there; of a film at least 0.3 are (films of mini-MIAS and CBIS-DDSM)."""

_LEAST, _LEAST_SPREAD = 64, 16
"""Greys that the brightest pixels reach, and the darkest leave to white, at least: a quarter of
them; and greys between the two."""

_CLIPPED = 0.9
"""Share of the pixels in between that may become black or white, at most."""

_ENDS = 0.05
"""Share of the range at both its ends that is not in between: noise and labels."""

_THUMBNAIL = 16
"""Pixels of the longer side to which noise is averaged away, and the smallest breast is not."""

_UNEVEN = 0.05
"""How far a flat field is from a smooth surface, from end to end, of its brightness."""


Whole = TypeVar("Whole", bound=np.integer)


def sample(pixels: NDArray[Whole]) -> NDArray[Whole]:
    """A sample of an image's pixels, in rows and columns; a view."""
    step = choose_sampling_step(pixels.shape)
    return pixels[::step, ::step]


def choose_sampling_step(shape: tuple[int, ...]) -> int:
    """One pixel out of how many, in a row and in a column, a sample of an image has."""
    return max(1, max(shape) // _SAMPLED)


def refuse_masks(sampled: NDArray[np.integer], lossy: bool) -> None:
    """Refuse a mask, which comes beside the images of a few collections, or a page of text.

    A mammogram may be black but for the breast; that alone has more values than two.

    Args:
        sampled: a sample of the values as they are stored: means of areas would have others.
        lossy: the encoding leaves what is near the values.

    Raises:
        UnreadableDicom: nearly all pixels have one of two values, or one near it.
    """
    values = sampled.astype(np.int32).ravel()
    if _two_values(values) or (lossy and _near_two_values(values)):
        raise UnreadableDicom(
            "nearly all its pixels have one of 2 values: it is a mask or a page of text, not a "
            "mammogram"
        )


def may_be_mask(sampled: NDArray[np.integer]) -> bool:
    """Whether these means of areas, which a wavelet's coarse levels are, may be of two values.

    So they may if many pixels are equal but for a 64th of the range, the background aside.
    """
    values = sampled.astype(np.int32).ravel()
    span = int(np.ptp(values)) + 1
    bins = np.bincount((values - values.min()) * 64 // span, minlength=64)
    background = int(bins.argmax())
    others = bins[np.abs(np.arange(64) - background) > 16]
    return bool(others.max() > 0.2 * others.sum())


def _two_values(values: NDArray[np.int32]) -> bool:
    times = np.bincount(values - values.min())
    few = np.partition(times, -min(2, len(times)))[-2:].sum()
    return bool(values.size - few < SMALLEST_BREAST * values.size)


def _near_two_values(values: NDArray[np.int32]) -> bool:
    bright = values >= np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)).mean()
    smaller = min(bright.sum(), values.size - bright.sum())
    if smaller < 2 * SMALLEST_BREAST * values.size:  # it may be a label, and the breast faint
        return False
    low, high = np.median(values[~bright]), np.median(values[bright])
    away = np.minimum(np.abs(values - low), np.abs(values - high))
    return bool((away > _NEAR * (high - low)).sum() < _FAR_AWAY * smaller)


def refuse_flat_fields(
    stored: NDArray[np.integer], nothing: Iterable[float], width: float | None
) -> None:
    """Refuse an exposure without a breast, by which a detector is tested.

    Its brightness is the same all over but for noise and for the fall towards the edges, which a
    surface of the second degree follows. Breast beside background is far from that; and so is
    tissue that fills the picture.

    Args:
        stored: (height, width), stored values.
        nothing: values that mean no or full exposure: brightness is the distance to the nearest,
            so that a dark image, or one with an offset, is not taken for flat.
        width: of the window, in stored values; what it would show at all is not flat.

    Raises:
        UnreadableDicom: it is flat.
    """
    scale = min(1.0, _THUMBNAIL / max(stored.shape))
    columns, rows = (max(1, round(side * scale)) for side in stored.shape[::-1])
    if columns * rows < 2 * _THUMBNAIL:
        return  # too few to tell
    small = cv2.resize(stored.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].reshape(2, -1)
    surface = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1)
    heights = small.ravel().astype(np.float64)
    fitted = surface @ np.linalg.lstsq(surface, heights, rcond=None)[0]
    brightness = min(abs(float(np.median(heights)) - value) for value in nothing)
    if width is not None:
        brightness = min(brightness, width)
    if np.ptp(heights - fitted) < _UNEVEN * brightness:
        raise UnreadableDicom(
            "it is equally bright all over: an exposure without a breast (a flat field), not a "
            "mammogram"
        )


def is_useful(
    stored: NDArray[np.integer], shown: NDArray[np.uint8], padding: NDArray[np.bool_] | None
) -> bool:
    """Whether a window or a table leaves something to see of these values.

    One for other values, such as a window of 12 bits beside pixels of 8, leaves nearly everything
    in a quarter of the greys at one end, or makes nearly everything between the darkest and the
    brightest values black or white. Viewers show it so, and leave it to the user to set another.

    Args:
        stored: (height, width).
        shown: (height, width), in the file's own sense.
        padding: (height, width), where there is no image.
    """
    values, greys = sample(stored), sample(shown)
    if padding is not None:
        inside = ~sample(padding.view(np.uint8)).view(bool)
        if inside.any():
            values, greys = values[inside], greys[inside]
    darkest, brightest = np.percentile(greys, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if brightest < _LEAST or darkest > 255 - _LEAST or brightest - darkest < _LEAST_SPREAD:
        return False
    low, high = np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE))
    margin = _ENDS * (high - low)
    between = greys[(values > low + margin) & (values < high - margin)]
    return bool(((between > 0) & (between < 255)).sum() > (1 - _CLIPPED) * between.size)
