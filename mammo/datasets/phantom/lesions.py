"""Draws findings into a phantom view: cancers, and the benign ones that make them hard to find."""

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from mammo.datasets.phantom.anatomy import project
from mammo.datasets.phantom.canvas import (
    Canvas,
    add_blob,
    add_fleck,
    box_of_spots,
    box_on,
    patch_on,
)
from mammo.datasets.phantom.texture import Points, bump, chaikin, draw_stroke, generator, turn
from mammo.datasets.phantom.women import Lesion
from mammo.imaging.geometry import Box

CONSPICUITY = 2.2
"""The one dial for how hard the sample is: how much cancers stand out against benign tissue.

It scales the contrast of the cancers only, of their cores, spicules and specks; 0 hides them.
Changing it changes the sample's hash.
"""


def draw_lesion(canvas: Canvas, lesion: Lesion, view_key: int) -> Box | None:
    """Draw one finding; return its box in pixels of the canvas, or None if this view misses it.

    A view has its own details of the same finding: margins differ in CC and MLO, position and size
    do not.
    """
    rng = generator(lesion.seed, view_key)
    x, y = project(lesion.position, canvas.seen)
    draw = _DRAWERS[lesion.kind]
    return draw(canvas, rng, lesion, x, y)


def _mass(canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float) -> Box | None:
    """A cancer: a dense, ill-defined core that pulls the tissue around it into spicules."""
    radius = lesion.radius
    height = 0.25 * lesion.contrast * CONSPICUITY
    add_blob(
        canvas, rng, (x, y), radius=0.85 * radius, wobble=0.15, edge=0.25 * radius, height=height
    )
    star = np.zeros_like(canvas.soft)
    reach = radius
    for _ in range(int(rng.integers(22, 38))):
        length = radius * (1.0 + 1.5 * float(rng.random() * rng.random()))
        cosine, sine = turn(float(rng.random()))
        bend = (float(rng.random()) - 0.5) * 0.4 * length
        points: Points = chaikin(
            [
                (x + 0.3 * radius * cosine, y + 0.3 * radius * sine),
                (x + 0.6 * length * cosine - bend * sine, y + 0.6 * length * sine + bend * cosine),
                (x + length * cosine, y + length * sine),
            ],
            2,
        )
        # From broad roots to nothing, so that the core ends in a fringe and not at a line.
        root = 0.6 + 0.9 * float(rng.random())
        widths = [root * (1.0 - index / len(points)) for index in range(len(points))]
        strength = height * (0.2 + 0.4 * float(rng.random()))
        draw_stroke(star, points, widths, strength, canvas.pixel)
        reach = max(reach, 0.7 * length)
    np.add(canvas.soft, star, out=canvas.soft)
    return box_on(canvas, x - reach, y - reach, x + reach, y + reach)


def _calcifications(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """A cancer: many fine specks of all sizes and shapes, crowded, a few along a duct."""
    cosine, sine = turn(float(rng.random()))
    height = 0.32 * lesion.contrast * CONSPICUITY
    spots: Points = []
    for _ in range(int(rng.integers(14, 30))):
        # Along the cluster's long axis, thinning out from the middle.
        u = lesion.radius * float(rng.random() + rng.random() - 1)
        v = 0.6 * lesion.radius * float(rng.random() + rng.random() - 1)
        linear = rng.random() < 0.35
        width = 0.40 + 0.32 * float(rng.random())
        length = width * (1.8 + 1.4 * float(rng.random())) if linear else width * 1.25
        # Linear ones follow the duct, the others point anywhere.
        dx, dy = turn((float(rng.random()) - 0.5) * (0.14 if linear else 1.0))
        strength = height * (0.5 + 0.8 * float(rng.random()))
        spot = (x + u * cosine - v * sine, y + u * sine + v * cosine)
        along = (dx * cosine - dy * sine, dx * sine + dy * cosine)
        add_fleck(canvas, spot, length=length, width=width, height=strength, direction=along)
        spots.append(spot)
    # The tissue that bears them is often a little denser.
    radius = lesion.radius
    add_blob(
        canvas, rng, (x, y), radius=0.7 * radius, wobble=0.3, edge=0.5 * radius, height=0.1 * height
    )
    return box_of_spots(canvas, spots)


def _lookalike_mass(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """Benign, yet suspicious: lobulated, its margin half hidden, but without spicules."""
    radius = lesion.radius
    height = 0.21 * lesion.contrast
    add_blob(
        canvas, rng, (x, y), radius=0.8 * radius, wobble=0.15, edge=0.2 * radius, height=height
    )
    dx, dy = turn(float(rng.random()))
    add_blob(
        canvas,
        rng,
        (x + 0.5 * radius * dx, y + 0.5 * radius * dy),
        radius=0.55 * radius,
        wobble=0.12,
        edge=0.25 * radius,
        height=0.6 * height,
    )
    reach = 1.1 * radius
    return box_on(canvas, x - reach, y - reach, x + reach, y + reach)


def _lookalike_calcifications(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """Benign, yet suspicious: a loose group of round specks, all alike."""
    width = 0.5 + 0.2 * float(rng.random())
    spots: Points = []
    for _ in range(int(rng.integers(5, 10))):
        dx, dy = turn(float(rng.random()))
        away = 1.5 * lesion.radius * (0.25 + 0.75 * float(rng.random()))
        spots.append((x + away * dx, y + away * dy))
        add_fleck(canvas, spots[-1], length=width, width=width, height=0.32 * lesion.contrast)
    return box_of_spots(canvas, spots)


def _benign_mass(canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float) -> Box | None:
    """A cyst or fibroadenoma: round or oval, smooth, sharply bounded, often with a dark halo."""
    radius = lesion.radius
    height = 0.21 * lesion.contrast
    if rng.random() < 0.6:
        halo = -0.15 * height
        add_blob(canvas, rng, (x, y), radius=radius + 0.9, wobble=0.0, edge=0.9, height=halo)
    add_blob(canvas, rng, (x, y), radius=radius, wobble=0.035, edge=0.7, height=height)
    reach = 1.05 * radius
    return box_on(canvas, x - reach, y - reach, x + reach, y + reach)


def _lymph_node(canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float) -> Box | None:
    """A bean with a fatty notch, in the axilla: only the MLO view shows it."""
    if canvas.seen.pectoral is None:
        return None
    top, foot = canvas.seen.pectoral
    x = top * (0.75 + 0.25 * lesion.position.lateral)
    y = foot * (0.24 + 0.16 * lesion.position.superior)
    radius, height = lesion.radius, 0.15 * lesion.contrast
    add_blob(canvas, rng, (x, y), radius=radius, wobble=0.05, edge=0.8, height=height, notch=0.85)
    reach = 1.15 * radius
    return box_on(canvas, x - reach, y - reach, x + reach, y + reach)


def _benign_calcification(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """One to three coarse lumps, solid or an eggshell, large and bright."""
    spots: Points = []
    for index in range(int(rng.integers(1, 4))):
        dx, dy = turn(float(rng.random()))
        away = 0.0 if index == 0 else lesion.radius * (1 + float(rng.random()))
        spot = (x + away * dx, y + away * dy)
        size = 2 * lesion.radius * (1.0 if index == 0 else 0.6)
        add_fleck(canvas, spot, length=size, width=size, height=0.5 * lesion.contrast)
        patch = patch_on(canvas, *spot, 0.5 * size)
        if rng.random() < 0.35 and patch is not None:  # an eggshell: its middle is clear
            hole = bump((patch.x * patch.x + patch.y * patch.y) * (1 / (0.16 * size * size)))
            canvas.chalk[patch.rows, patch.columns] *= 1.0 - 0.8 * hole
        spots.append(spot)
    return box_of_spots(canvas, spots, margin=lesion.radius)


def _scattered_calcifications(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """Single round specks far apart, all over the breast."""
    spots: Points = []
    for _ in range(int(rng.integers(5, 13))):
        dx, dy = turn(float(rng.random()))
        away = lesion.radius * (0.15 + 0.85 * float(rng.random()))
        width = 0.45 + 0.5 * float(rng.random())
        spots.append((x + away * dx, y + away * dy))
        add_fleck(canvas, spots[-1], length=width, width=width, height=0.36 * lesion.contrast)
    return box_of_spots(canvas, spots)


def _vascular_calcification(
    canvas: Canvas, rng: Generator, lesion: Lesion, x: float, y: float
) -> Box | None:
    """Two parallel broken lines along a winding artery."""
    cosine, sine = turn(float(rng.random()))
    length = lesion.radius
    rough: Points = []
    for index in range(6):
        u = length * (index / 2.5 - 1)
        bend = length * 0.35 * (float(rng.random()) - 0.5)
        rough.append((x + u * cosine - bend * sine, y + u * sine + bend * cosine))
    path = chaikin(rough, 3)
    draw_stroke(canvas.soft, path, [2.2] * len(path), 0.07, canvas.pixel)
    spots: Points = [path[0], path[-1]]
    for (x0, y0), (x1, y1) in pairwise(path):
        step = float(np.sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0))) + 1e-6
        dx, dy = (x1 - x0) / step, (y1 - y0) / step
        for side in (-0.85, 0.85):
            if rng.random() < 0.75:
                spots.append((x0 - side * dy, y0 + side * dx))
                add_fleck(
                    canvas,
                    spots[-1],
                    length=min(step, 1.6),
                    width=0.45,
                    height=0.26 * lesion.contrast,
                    direction=(dx, dy),
                )
    return box_of_spots(canvas, spots)


_DRAWERS = {
    "mass": _mass,
    "calcifications": _calcifications,
    "benign_mass": _benign_mass,
    "benign_calcification": _benign_calcification,
    "scattered_calcifications": _scattered_calcifications,
    "vascular_calcification": _vascular_calcification,
    "lymph_node": _lymph_node,
    "lookalike_mass": _lookalike_mass,
    "lookalike_calcifications": _lookalike_calcifications,
}
