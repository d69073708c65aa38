"""The shape of a phantom breast, and how a point in it shows in the two views.

Each view has its own plane, in mm: x runs from the chest wall (x = 0) toward the nipple and y runs
down from the image's upper edge, as in a left breast on a light box. Right breasts are mirrored
when the image is stored.

A point inside the breast is given by its depth behind the nipple in mm and by how far lateral and
how far superior it lies, both -1 to 1. Its depth is the same in both views, which is how
radiologists match a finding in CC to one in MLO.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mammo.datasets.phantom.texture import Plane, Points, chaikin, double, turn

FIELD_HEIGHT_MM = 240.0


@dataclass(frozen=True)
class Shape:
    """One breast, under compression. Lengths in mm."""

    depth: float  # nipple to chest wall, 65 to 115
    half_width: float  # of the CC silhouette at the chest wall, 65 to 95
    skew: float  # -1 to 1: lateral or medial fullness
    sag: float  # 0 to 1: how low the nipple hangs in MLO
    pectoral_top: float  # where the muscle's edge meets the MLO's upper border, 35 to 75
    pectoral_foot: float  # how far down the muscle reaches, 90 to 160


@dataclass(frozen=True)
class Silhouette:
    """A breast's outline in one view. Points and lengths in mm."""

    view: str
    outline: Points  # closed
    nipple: tuple[float, float]
    axis: tuple[float, float]  # unit vector from the nipple toward the chest wall
    spread: float  # mm that one unit of lateral or superior stands for
    pectoral: tuple[float, float] | None  # top and foot of the muscle's edge; None in CC


@lru_cache(maxsize=64)  # planning asks for the same one for every finding of a breast
def outline_breast(shape: Shape, view: str) -> Silhouette:
    """The outline of a breast in one view."""
    if view == "CC":
        return _cranio_caudal(shape)
    return _oblique(shape)


def _cranio_caudal(shape: Shape) -> Silhouette:
    middle = FIELD_HEIGHT_MM / 2 + 4 * shape.skew
    points: Points = [(-70.0, middle - shape.half_width)]
    for step in range(17):
        cosine, sine = turn(-0.25 + step / 32)
        # A superellipse's square shoulders, and more tissue on the lateral (upper) side.
        lean = 1 + 0.06 * shape.skew * sine
        x = shape.depth * cosine * (1.22 - 0.22 * cosine) * lean
        points.append((x, middle + shape.half_width * sine * (1.02 - 0.02 * cosine)))
    points.append((-70.0, middle + shape.half_width))
    nipple_y = middle + 5 * shape.skew
    outline = chaikin(points, 2, closed=True)
    return Silhouette(
        "CC",
        outline,
        (_edge_at(outline, nipple_y), nipple_y),
        (-1.0, 0.0),
        shape.half_width,
        None,
    )


def _oblique(shape: Shape) -> Silhouette:
    depth, half = shape.depth, shape.half_width
    nipple_y = 122 + 24 * shape.sag
    fold_y = min(nipple_y + 0.95 * half, 226.0)
    drop = fold_y - nipple_y
    points: Points = [
        (-70.0, -40.0),
        (0.50 * depth + 8, -40.0),
        (0.52 * depth + 8, -5.0),
        (0.60 * depth + 7, 0.20 * nipple_y),
        (0.77 * depth + 3, 0.46 * nipple_y),
        (0.92 * depth, 0.70 * nipple_y),
        (1.00 * depth, 0.88 * nipple_y),
        (1.035 * depth, nipple_y + 5),
        (0.985 * depth, nipple_y + 0.33 * drop),
        (0.83 * depth, nipple_y + 0.64 * drop),
        (0.58 * depth, nipple_y + 0.88 * drop),
        (0.30 * depth, fold_y),
        (0.10 * depth, fold_y + 4),
        (0.04 * depth, fold_y + 14),
        (0.05 * depth, fold_y + 45),
        (-70.0, fold_y + 45),
    ]
    outline = chaikin(points, 3, closed=True)
    tilt = turn(0.5 + 0.05)  # toward the chest wall and up: across the pectoral muscle
    return Silhouette(
        "MLO",
        outline,
        (_edge_at(outline, nipple_y), nipple_y),
        tilt,
        half,
        (shape.pectoral_top, shape.pectoral_foot),
    )


def _edge_at(outline: Points, y: float) -> float:
    """The outline's rightmost x at the height y."""
    best = 0.0
    for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
        if (y0 <= y) != (y1 <= y):
            best = max(best, x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    return best


@dataclass(frozen=True)
class Position:
    """A point inside a breast: see the module's docstring."""

    depth: float  # mm behind the nipple
    lateral: float
    superior: float


def project(position: Position, seen: Silhouette) -> tuple[float, float]:
    """Where a position shows in a view, (x, y) in mm."""
    # The oblique ray runs from upper inner to lower outer: outer tissue projects high.
    oblique = 0.66 * position.superior + 0.36 * position.lateral
    up = 0.8 * position.lateral if seen.view == "CC" else oblique
    ax, ay = seen.axis
    # Tissue nearer to the nipple has less room to either side.
    room = seen.spread * (0.35 + 0.65 * min(position.depth / 60.0, 1.0))
    x = seen.nipple[0] + ax * position.depth - ay * up * room
    y = seen.nipple[1] + ay * position.depth + ax * up * room
    return x, y


def depth_under_skin(outline: Points, x: float, y: float) -> float:
    """Distance of one point to the outline in mm, negative outside."""
    ends = np.array(outline)
    starts = np.roll(ends, 1, axis=0)
    dx, dy = (ends - starts).T
    px, py = x - starts[:, 0], y - starts[:, 1]
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    nearest = np.min(np.square(px - along * dx) + np.square(py - along * dy))
    crosses = (starts[:, 1] <= y) != (ends[:, 1] <= y)
    # px < py * dx / dy, without the division: an edge across which the point lies
    beyond = np.where(dy > 0, px * dy < py * dx, px * dy > py * dx)
    inside = int(np.count_nonzero(crosses & beyond)) % 2 == 1
    distance = float(np.sqrt(nearest))
    return distance if inside else -distance


def distance_plane(seen: Silhouette, shape: tuple[int, int], pixel: float) -> Plane:
    """Distance to the skin for each pixel in mm, negative outside; the nipple is inside.

    Worked out at a quarter of the size and smoothly enlarged: exact distances are smooth.
    """
    quarter = tuple(-(-size // 4) for size in shape)
    # A doubled plane's pixels lie between the coarse ones: the first at -3/8 of a coarse pixel.
    y = ((np.arange(quarter[0]) * 4 + 1.5) * pixel)[:, None]
    x = ((np.arange(quarter[1]) * 4 + 1.5) * pixel)[None, :]
    coarse = _signed_distance(seen.outline, y, x).astype(np.float32)
    plane = np.ascontiguousarray(double(double(coarse))[: shape[0], : shape[1]])
    nx, ny = seen.nipple
    rows = (np.arange(shape[0], dtype=np.float32) * pixel)[:, None] - ny
    columns = (np.arange(shape[1], dtype=np.float32) * pixel)[None, :] - (nx - 2.2)
    bud = 4.2 - np.sqrt(np.square(rows) + np.square(columns))
    # A smooth union: skin runs up the nipple without a crease.
    blend = np.clip(0.5 + (plane - bud) * (0.5 / _FILLET_MM), 0.0, 1.0)
    union: Plane = bud + (plane - bud) * blend + _FILLET_MM * blend * (1.0 - blend)
    return union


_FILLET_MM = 3.0
"""How far from the nipple's foot the skin begins to rise."""


def _signed_distance(outline: Points, y: Plane, x: Plane) -> Plane:
    shape = np.broadcast_shapes(y.shape, x.shape)
    nearest = np.full(shape, 1e12)
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        px, py = x - x0, y - y0
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        np.minimum(nearest, np.square(px - along * dx) + np.square(py - along * dy), out=nearest)
        if y0 != y1:
            crosses = (y0 <= y) != (y1 <= y)
            inside ^= crosses & (px < py * (dx / dy))
    distance = np.sqrt(nearest)
    signed: Plane = np.where(inside, distance, -distance)
    return signed


@dataclass(frozen=True)
class Oval:
    """An ellipse along the axes, in mm."""

    x: float
    y: float
    half_width: float
    half_height: float

    def contains(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point lies inside, or no more than about `margin` mm outside."""
        across = (x - self.x) / (self.half_width + margin)
        down = (y - self.y) / (self.half_height + margin)
        return across * across + down * down < 1


def implant_oval(shape: Shape, seen: Silhouette) -> Oval:
    """Where a silicone implant lies: against the chest wall, behind the nipple."""
    lift = 0.0 if seen.pectoral is None else 14.0
    return Oval(0.0, seen.nipple[1] - lift, 0.52 * shape.depth, 0.60 * shape.half_width)


def in_pectoral(seen: Silhouette, x: float, y: float) -> bool:
    """Whether a point (mm) lies over the pectoral muscle."""
    if seen.pectoral is None:
        return False
    top, foot = seen.pectoral
    return x / top + y / foot < 1
