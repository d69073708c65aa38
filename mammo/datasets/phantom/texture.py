"""Exact building blocks for phantoms: noise, smooth steps, angles and strokes.

The sample's hash is committed, so its pixels must be the same on every x86-64 machine. Only what
IEEE 754 rounds correctly is used, on float32 arrays: + - * / and square roots, comparisons, and
conversions from and to integers. So nothing depends on the processor's vector instructions, on
threads or on the C library. What is *not* used, because its last bit differs between processors:
exp, log, sin, cos and power on arrays (numpy has an AVX-512 version and another), the same
functions of `math` (the C library has an FMA version and another), sums and means of floats (their
order differs), matrix products (BLAS), FFT, and OpenCV filters.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
"""A two-dimensional array, (rows, columns), float32 throughout."""

_HALF_RANGE = 2.0**-15


def generator(*key: int) -> Generator:
    """A random generator of its own for each key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def symmetric_noise(rng: Generator, shape: tuple[int, int]) -> Plane:
    """White noise, uniform in [-1, 1): variance 1/3."""
    draws = rng.integers(-(2**15), 2**15, size=shape, dtype=np.int16)
    return draws.astype(np.float32) * np.float32(_HALF_RANGE)


def bell_noise(rng: Generator, shape: tuple[int, int]) -> Plane:
    """White noise close to a normal distribution of variance 1: a sum of four uniform draws."""
    words = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
    quarters = words.view("<i2").reshape(*shape, 4)
    total = quarters[..., 0].astype(np.int32)
    for index in (1, 2, 3):
        total += quarters[..., index]
    # Four uniform draws on [-1, 1) have a variance of 4/3, whose root is 1.1547.
    return total.astype(np.float32) * np.float32(_HALF_RANGE / 1.1547)


def smoothstep(low: float, high: float, x: Plane) -> Plane:
    """0 below `low`, 1 above `high`, a cubic with flat ends between."""
    t = np.clip((x - low) * (1.0 / (high - low)), 0.0, 1.0)
    step: Plane = t * t * (3.0 - 2.0 * t)
    return step


def bump(squared: Plane) -> Plane:
    """A smooth hill of the squared distance: 1 at 0, and 0 from 1 on."""
    rest = np.maximum(1.0 - squared, 0.0)
    hill: Plane = rest * rest
    return hill


def double(plane: Plane, wrap: bool = False) -> Plane:
    """Twice the rows and columns, by Chaikin's rule (quadratic B-spline)."""
    return _double_columns(_double_columns(plane, wrap).T, wrap).T


def _double_columns(plane: Plane, wrap: bool) -> Plane:
    before = np.empty_like(plane)
    before[:, 1:] = plane[:, :-1]
    before[:, 0] = plane[:, -1] if wrap else plane[:, 0]
    after = np.empty_like(plane)
    after[:, :-1] = plane[:, 1:]
    after[:, -1] = plane[:, 0] if wrap else plane[:, -1]
    near = plane * 0.75
    doubled = np.empty((plane.shape[0], plane.shape[1] * 2), np.float32)
    doubled[:, 0::2] = near + before * 0.25
    doubled[:, 1::2] = near + after * 0.25
    return doubled


def blur(plane: Plane) -> Plane:
    """The binomial 3 x 3 blur, the edge repeated."""
    for _ in range(2):
        padded = np.concatenate([plane[:1], plane, plane[-1:]])
        plane = ((padded[:-2] + padded[2:]) * 0.25 + plane * 0.5).T
    return plane


def cloud_noise(
    rng: Generator, shape: tuple[int, int], coarsest: int, roughness: float, finest: int = 1
) -> Plane:
    """Noise with a power-law spectrum, as fat and glandular tissue have.

    Each octave has `roughness` times the amplitude of the one before, from cells of `coarsest`
    pixels down to cells of `finest` (both powers of two): 0.7 gives a spectrum near 1/f^3, as
    measured in mammograms, 0.5 one near 1/f^4. Mean near 0, variance near 1.
    """
    levels = coarsest.bit_length() - 1
    stop = finest.bit_length() - 1
    rows, columns = (-(-size // coarsest) + 1 for size in shape)
    plane = symmetric_noise(rng, (rows, columns))
    amplitude, variance = 1.0, 1.0
    for level in range(levels - 1, -1, -1):
        plane = double(plane)
        variance *= _SMOOTHING
        wanted = tuple(-(-size // 2**level) + 1 for size in shape)
        plane = plane[: wanted[0], : wanted[1]]
        if level >= stop:
            amplitude *= roughness
            plane = plane + symmetric_noise(rng, plane.shape) * amplitude
            variance += amplitude * amplitude
    scale = float(np.sqrt(3.0 / variance))
    return np.ascontiguousarray(plane[: shape[0], : shape[1]]) * np.float32(scale)


_SMOOTHING = 0.75
"""About how much of the variance of a plane is left after it was doubled."""


def tile_noise(rng: Generator, size: int, cell: int, octaves: int, roughness: float) -> Plane:
    """A square tile of smooth noise that continues itself across its edges; variance near 1.

    `size` and `cell` are powers of two; the finest of the `octaves` has cells of `cell` texels.
    """
    level_size = size // (cell << (octaves - 1))
    plane = symmetric_noise(rng, (level_size, level_size))
    amplitude, variance = 1.0, 1.0
    for _ in range(octaves - 1):
        plane = double(plane, wrap=True)
        amplitude *= roughness
        plane = plane + symmetric_noise(rng, plane.shape) * amplitude
        variance = variance * _SMOOTHING + amplitude * amplitude
    while plane.shape[0] < size:
        plane = double(plane, wrap=True)
    variance *= 0.6
    return np.ascontiguousarray(plane) * np.float32(np.sqrt(3.0 / variance))


def look_up(tile: Plane, y: Plane, x: Plane) -> Plane:
    """A tile's values at texel coordinates, bilinear, repeating without end."""
    mask = tile.shape[0] - 1
    shift = tile.shape[0].bit_length() - 1
    row, column = np.floor(y), np.floor(x)
    down, across = y - row, x - column
    row0 = row.astype(np.int32)
    column0 = column.astype(np.int32)
    row1, column1 = ((row0 + 1) & mask) << shift, (column0 + 1) & mask
    row0, column0 = (row0 & mask) << shift, column0 & mask
    flat = tile.ravel()
    upper: Plane = flat[row0 + column0]
    upper += (flat[row0 + column1] - upper) * across
    lower = flat[row1 + column0]
    lower += (flat[row1 + column1] - lower) * across
    upper += (lower - upper) * down
    return upper


def ridges(noise: Plane, width: float) -> Plane:
    """Thin bright lines along the noise's zero crossings, in [0, 1]."""
    return bump(np.square(noise * (1.0 / width)))


def turn(fraction: float) -> tuple[float, float]:
    """Cosine and sine of a fraction of a full turn, from a polynomial (error below 1e-6)."""
    quarter, rest = divmod(fraction * 4.0, 1.0)
    # The rest is in [0, 1) quarters: evaluate about its middle, then turn by an eighth.
    a = (rest - 0.5) * 1.5707963267948966
    square = a * a
    sine = a * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72))))
    cosine = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))
    half = 0.7071067811865476
    x, y = half * (cosine - sine), half * (cosine + sine)
    for _ in range(int(quarter) % 4):
        x, y = -y, x
    return x, y


def fake_angle(dy: Plane, dx: Plane) -> Plane:
    """The direction of (dx, dy), 0 to 4 for a full turn, by division instead of arctangent.

    It grows steadily with the angle, is 0 along +x, 1 along +y and 2 along -x.
    """
    slant = dy / (np.abs(dx) + np.abs(dy) + np.float32(1e-6))
    return np.where(dx >= 0, slant, 2.0 - slant).astype(np.float32)


Points = list[tuple[float, float]]
"""A line as (x, y) points."""


def chaikin(points: Points, rounds: int, closed: bool = False) -> Points:
    """Round a polygon's corners; an open line keeps its ends."""
    for _ in range(rounds):
        pairs = list(zip(points, points[1:] + points[:1], strict=True))
        if not closed:
            pairs = pairs[:-1]
        cut: Points = [] if closed else [points[0]]
        for (x0, y0), (x1, y1) in pairs:
            cut.append((0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1))
            cut.append((0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1))
        points = cut if closed else [*cut, points[-1]]
    return points


def draw_stroke(
    plane: Plane, points: Points, widths: Iterable[float], strength: float, pixel: float
) -> None:
    """Raise `plane` to a soft line through `points` (in mm), where it is lower.

    Args:
        plane: changed in place.
        points: at least two, in mm from the plane's upper left corner.
        widths: full width in mm at each point; widths under a pixel fade instead of vanishing.
        strength: the line's height in its middle.
        pixel: mm a pixel.
    """
    rows, columns = plane.shape
    sizes = list(widths)
    for (x0, y0), (x1, y1), w0, w1 in zip(points, points[1:], sizes, sizes[1:], strict=False):
        reach = max(w0, w1, 1.5 * pixel) + pixel
        top = max(int((min(y0, y1) - reach) / pixel), 0)
        left = max(int((min(x0, x1) - reach) / pixel), 0)
        bottom = min(int((max(y0, y1) + reach) / pixel) + 2, rows)
        right = min(int((max(x0, x1) + reach) / pixel) + 2, columns)
        if top >= bottom or left >= right:
            continue
        y = (np.arange(top, bottom, dtype=np.float32) * pixel)[:, None] - y0
        x = (np.arange(left, right, dtype=np.float32) * pixel)[None, :] - x0
        dx, dy = x1 - x0, y1 - y0
        along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
        across = np.square(x - along * dx) + np.square(y - along * dy)
        width = w0 + (w1 - w0) * along
        drawn = np.maximum(width, 1.5 * pixel)
        line = bump(across / np.square(drawn)) * (width / drawn) * strength
        part = plane[top:bottom, left:right]
        np.maximum(part, line, out=part)
