"""The tissue of a phantom breast in one view: fat, strands, gland, muscle, ducts and implant.

Tissue is drawn as brightness in full thickness, on a scale where air is 0 and white is 1;
`view` lets it fall off toward the skin. Most of it varies slowly and is worked out for
every second pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mammo.datasets.phantom.anatomy import Shape, Silhouette, implant_oval, project
from mammo.datasets.phantom.texture import (
    Plane,
    Points,
    bump,
    chaikin,
    cloud_noise,
    double,
    draw_stroke,
    fake_angle,
    generator,
    look_up,
    ridges,
    smoothstep,
    tile_noise,
)
from mammo.datasets.phantom.women import DENSE_FRACTION, Breast, Woman

FAT = 0.29
"""Brightness of fat in the full thickness of the breast."""


def draw_tissue(
    woman: Woman, breast: Breast, seen: Silhouette, distance: Plane, pixel: float, rng: Generator
) -> Plane:
    """All tissue but lesions and implants.

    Args:
        woman: sets the density, and what her two breasts have in common.
        breast: where its glandular tissue lies.
        seen: its outline in this view.
        distance: from the skin, in mm, for each pixel; the result has its shape.
        pixel: mm a pixel.
        rng: of this view.
    """
    shape = distance.shape
    grid = _Grid.half(seen, (shape[0], shape[1]), pixel)
    fibres = _fibres(grid, rng)
    muscle = _muscle(seen, grid, rng)
    gland = _gland(woman, breast, seen, grid, distance[::2, ::2], muscle, fibres, rng)
    coarse = _tissue(seen, grid, gland, muscle, fibres, rng)
    tissue = np.ascontiguousarray(double(coarse)[: shape[0], : shape[1]])
    tissue += cloud_noise(rng, (shape[0], shape[1]), 8, 0.75) * 0.006
    _draw_ducts(tissue, seen, pixel, rng)
    return tissue


@dataclass(frozen=True)
class _Grid:
    """Every second pixel's coordinates in mm: in the image, and behind the nipple."""

    pixel: float
    x: Plane
    y: Plane
    behind: Plane  # mm along the axis from the nipple to the chest wall
    aside: Plane  # mm across it

    @staticmethod
    def half(seen: Silhouette, shape: tuple[int, int], pixel: float) -> "_Grid":
        rows, columns = -(-shape[0] // 2), -(-shape[1] // 2)
        ones = np.ones((rows, columns), np.float32)
        x = ((np.arange(columns, dtype=np.float32) * 2 + 0.5) * pixel)[None, :] * ones
        y = ((np.arange(rows, dtype=np.float32) * 2 + 0.5) * pixel)[:, None] * ones
        (nx, ny), (ax, ay) = seen.nipple, seen.axis
        behind = (x - nx) * ax + (y - ny) * ay
        aside = (y - ny) * ax - (x - nx) * ay
        return _Grid(2 * pixel, x, y, behind, aside)

    def cells(self, mm: float) -> int:
        """The power of two of grid cells that is nearest to a length, at least 2."""
        cells = 2
        while cells * 1.5 * self.pixel < mm:
            cells *= 2
        return cells


@dataclass(frozen=True)
class _Fibres:
    """The strands of a breast on the half-size grid, each near -2 to 2 or, as lines, 0 to 1."""

    strands: Plane  # broad bands from the nipple to the chest wall
    lines: Plane  # thin bright lines: ducts, septa and Cooper's ligaments
    tile: Plane


def _fibres(grid: _Grid, rng: Generator) -> _Fibres:
    shape = grid.x.shape
    # Only long waves: short ones would crumple the strands.
    wave_x = cloud_noise(rng, shape, grid.cells(36), 0.55, grid.cells(8)) * 4.5
    wave_y = cloud_noise(rng, shape, grid.cells(36), 0.55, grid.cells(8)) * 4.5
    # Most run from the nipple to the chest wall: noise drawn out along that way.
    behind, aside = grid.behind + wave_x, grid.aside + wave_y
    radius = np.sqrt(behind * behind + aside * aside)
    fan = fake_angle(aside, behind + 14.0) * (0.55 * radius + 34.0)
    tile = tile_noise(rng, 512, 8, 3, 0.62)
    broad = look_up(tile, fan * (8 / 13.0) + 150.0, radius * (8 / 34.0) + 33.0)
    long = look_up(tile, fan * (8 / 9.0), radius * (8 / 30.0))
    short = look_up(tile, fan * (8 / 4.5) + 211.0, radius * (8 / 12.0) + 97.0)
    # A net of arcs between the lobules, coarse and fine.
    down, across = grid.y + wave_y * 1.6, grid.x + wave_x * 1.6
    net = look_up(tile, down * (8 / 10.0) + 57.0, across * (8 / 14.0) + 301.0)
    mesh = look_up(tile, (down + 0.5 * across) * (8 / 6.0) + 412.0, across * (8 / 8.5) + 17.0)
    where = cloud_noise(rng, shape, grid.cells(20), 0.6, grid.cells(4))
    lines = 0.50 * ridges(long, 0.12) * smoothstep(-1.8, 1.2, where)
    lines += 0.35 * ridges(short, 0.17) * smoothstep(-1.3, 1.5, where)
    lines += 0.40 * ridges(net, 0.09) * smoothstep(-1.4, 1.2, -where)
    lines += 0.26 * ridges(mesh, 0.12)
    return _Fibres(broad + 0.5 * long, lines, tile)


def _gland(
    woman: Woman,
    breast: Breast,
    seen: Silhouette,
    grid: _Grid,
    distance: Plane,
    muscle: Plane,
    fibres: _Fibres,
    rng: Generator,
) -> Plane:
    """How glandular the tissue is, 0 (fat) to 1."""
    shape = grid.x.shape
    # Both breasts of a woman share the rough distribution: one generator for both sides.
    common = generator(woman.seed, 5, ("CC", "MLO").index(seen.view))
    x = grid.x + cloud_noise(common, shape, grid.cells(24), 0.55) * 5.0
    y = grid.y + cloud_noise(common, shape, grid.cells(24), 0.55) * 5.0
    field = cloud_noise(common, shape, grid.cells(18), 0.5) * 0.10
    field += cloud_noise(rng, shape, grid.cells(12), 0.55) * 0.06
    field += fibres.strands * 0.10 + fibres.lines * 0.15
    for island in breast.islands:
        cx, cy = project(island.position, seen)
        reach = 1 / (island.radius * island.radius)
        hill = bump(((x - cx) * (x - cx) + (y - cy) * (y - cy)) * reach)
        field += hill * (0.8 * island.weight)
    # Under the skin and before the muscle lies a layer of fat.
    free = smoothstep(2.0, 20.0, distance) * (1.0 - muscle)
    field = (field + 0.5) * free
    own = field[(distance > 0) & (muscle < 0.5)]
    rank = int(own.size * (1 - DENSE_FRACTION[woman.density]))
    level = float(np.partition(own, rank)[rank])
    return smoothstep(level - 0.26, level + 0.34, field) * free


def _muscle(seen: Silhouette, grid: _Grid, rng: Generator) -> Plane:
    """How much of the pectoral muscle lies in the beam, 0 to 1; nothing in CC."""
    if seen.pectoral is None:
        return np.zeros(grid.x.shape, np.float32)
    top, foot = seen.pectoral
    line = grid.x * (1 / top) + grid.y * (1 / foot) - 1.0
    # The edge bulges a little toward the nipple.
    line -= grid.x * grid.y * (0.45 / (top * foot))
    line += cloud_noise(rng, grid.x.shape, grid.cells(60), 0.5) * 0.018
    return 1.0 - smoothstep(-0.07, 0.035, line)


def _tissue(
    seen: Silhouette,
    grid: _Grid,
    gland: Plane,
    muscle: Plane,
    fibres: _Fibres,
    rng: Generator,
) -> Plane:
    """Brightness of the tissue in full thickness."""
    shape = grid.x.shape
    cloud = cloud_noise(rng, shape, grid.cells(30), 0.68)
    fine = cloud_noise(rng, shape, grid.cells(7), 0.66)
    lobules = smoothstep(-1.5, 1.6, 0.7 * fine + 0.55 * cloud + 0.5 * fibres.strands)
    tissue: Plane = FAT + 0.022 * cloud + 0.010 * fine + 0.11 * fibres.lines
    tissue += gland * (0.06 + 0.22 * lobules + 0.14 * fibres.lines)
    if seen.pectoral is not None:
        top, foot = seen.pectoral
        along = grid.y * (1 / foot) - grid.x * (1 / top)
        strands = look_up(fibres.tile, grid.x * (8 / 5.0) + along * 3, along * (8 / 0.7))
        corner = np.maximum(1.0 - grid.x * (1 / top) - grid.y * (1 / foot), 0.0)
        flesh = 0.50 + 0.16 * corner + 0.009 * strands + 0.4 * (tissue - FAT)
        tissue = tissue + (flesh - tissue) * muscle
    return tissue


def _draw_ducts(tissue: Plane, seen: Silhouette, pixel: float, rng: Generator) -> None:
    """Ducts fan out behind the nipple; a few vessels wind through the fat."""
    lines = np.zeros_like(tissue)
    (nx, ny), (ax, ay) = seen.nipple, seen.axis
    for index in range(int(rng.integers(10, 18))):
        vessel = index % 4 == 3
        side = float(rng.random()) * 2 - 1
        length = 22 + 34 * float(rng.random())
        points: Points = [(nx + 3 * ax, ny + 3 * ay)]
        if vessel:
            points = [(nx + 25 * ax - ay * side * 40, ny + 25 * ay + ax * side * 40)]
        for step in (1, 2, 3, 4):
            behind = length * step / 4
            across = side * behind * 0.75 + (float(rng.random()) - 0.5) * 9
            x, y = points[0]
            points.append((x + ax * behind - ay * across, y + ay * behind + ax * across))
        path = chaikin(points, 3)
        thick = 1.6 if vessel else 0.8
        widths = [thick * (1.2 - 1.1 * i / len(path)) for i in range(len(path))]
        draw_stroke(lines, path, widths, 0.03 + 0.04 * float(rng.random()), pixel)
    tissue += lines


def draw_implant(tissue: Plane, chalk: Plane, shape: Shape, seen: Silhouette, pixel: float) -> None:
    """Lay an implant over tissue and calcium, in place: an oval, smooth and bright."""
    oval = implant_oval(shape, seen)
    rows, columns = tissue.shape
    y = (np.arange(rows, dtype=np.float32) * pixel)[:, None] - oval.y
    x = (np.arange(columns, dtype=np.float32) * pixel)[None, :] - oval.x
    squared = np.square(x * (1 / oval.half_width)) + np.square(y * (1 / oval.half_height))
    inside = 1.0 - smoothstep(0.93, 1.04, squared)
    body = 0.86 + 0.05 * (1.0 - np.minimum(squared, 1.0))
    tissue += (body - tissue) * inside
    chalk *= 1.0 - inside
