"""What findings are drawn on, and the shapes that they are made of."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mammo.datasets.phantom.anatomy import Silhouette
from mammo.datasets.phantom.texture import (
    Plane,
    Points,
    bump,
    cloud_noise,
    draw_stroke,
    smoothstep,
    turn,
)
from mammo.imaging.geometry import Box


@dataclass(frozen=True)
class Canvas:
    """Where findings are drawn, and where they are.

    `soft` is extra tissue, drawn before the view's brightness falls off toward the skin; `chalk`
    is calcium, drawn on top. Both are changed in place.
    """

    soft: Plane
    chalk: Plane
    pixel: float  # mm
    seen: Silhouette


def box_on(canvas: Canvas, x0: float, y0: float, x1: float, y1: float) -> Box | None:
    """A box in mm as one in whole pixels, cut at the image's edge; None if nothing is left."""
    rows, columns = canvas.soft.shape
    box = Box(
        np.floor(x0 / canvas.pixel),
        np.floor(y0 / canvas.pixel),
        np.ceil(x1 / canvas.pixel),
        np.ceil(y1 / canvas.pixel),
    ).clip(columns, rows)
    return box if box.width > 0 and box.height > 0 else None


@dataclass(frozen=True)
class CanvasWindow:
    """A square window of the canvas about a finding; x and y in mm from its centre."""

    rows: slice
    columns: slice
    x: Plane
    y: Plane


def patch_on(canvas: Canvas, x: float, y: float, reach: float) -> CanvasWindow | None:
    """The part of a canvas up to `reach` mm from a point (x, y); None where it has no pixel."""
    height, width = canvas.soft.shape
    top = max(int((y - reach) / canvas.pixel), 0)
    left = max(int((x - reach) / canvas.pixel), 0)
    bottom = min(int((y + reach) / canvas.pixel) + 2, height)
    right = min(int((x + reach) / canvas.pixel) + 2, width)
    if top >= bottom or left >= right:
        return None
    across = (np.arange(left, right, dtype=np.float32) * canvas.pixel - x)[None, :]
    down = (np.arange(top, bottom, dtype=np.float32) * canvas.pixel - y)[:, None]
    ones = np.ones((bottom - top, right - left), np.float32)
    return CanvasWindow(slice(top, bottom), slice(left, right), across * ones, down * ones)


def add_blob(
    canvas: Canvas,
    rng: Generator,
    spot: tuple[float, float],
    *,
    radius: float,
    wobble: float,
    edge: float,
    height: float,
    notch: float = 0.0,
) -> None:
    """Add a roundish mass at (x, y): `wobble` roughens its margin, `edge` softens it; all in mm.

    `notch` takes that share of its height away on one side.
    """
    patch = patch_on(canvas, *spot, radius * 1.9 + edge)
    if patch is None:
        return
    cosine, sine = turn(float(rng.random()))
    stretch = 1 + 0.3 * float(rng.random())
    u = (patch.x * cosine + patch.y * sine) * (1 / stretch)
    v = (patch.y * cosine - patch.x * sine) * stretch
    # The margin is lobed and ragged, yet never grainy: waves from a radius down to half a mm.
    finest = coarsest = 2
    while finest * 1.5 * canvas.pixel <= 0.5:
        finest *= 2
    while coarsest * 1.5 * canvas.pixel <= radius:
        coarsest *= 2
    finest = min(finest, coarsest)
    noise = cloud_noise(rng, patch.x.shape, coarsest, 0.6, finest)
    distance = np.sqrt(u * u + v * v) + noise * (wobble * radius)
    body = 1.0 - smoothstep(radius - edge, radius + edge, distance)
    # A ball is thickest in its middle.
    body = body * (0.65 + 0.35 * bump((u * u + v * v) * (1 / (radius * radius))))
    if notch:
        aside = u - 0.6 * radius
        body = body * (1.0 - notch * bump((aside * aside + v * v) * (1.4 / (radius * radius))))
    canvas.soft[patch.rows, patch.columns] += body * height


def add_fleck(
    canvas: Canvas,
    spot: tuple[float, float],
    *,
    length: float,
    width: float,
    height: float,
    direction: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Add a fleck of calcium, round or drawn out along `direction` (a unit vector); all in mm."""
    (x, y), (dx, dy) = spot, direction
    half = max(length - width, 0.02) / 2
    ends: Points = [(x - half * dx, y - half * dy), (x + half * dx, y + half * dy)]
    # A stroke's profile is soft: three quarters of the nominal width look like all of it.
    draw_stroke(canvas.chalk, ends, [0.75 * width] * 2, height, canvas.pixel)


def box_of_spots(canvas: Canvas, spots: Points, margin: float = 1.0) -> Box | None:
    """The box around points with a margin, all in mm; None if they are off the image."""
    xs, ys = [x for x, _ in spots], [y for _, y in spots]
    return box_on(canvas, min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin)
