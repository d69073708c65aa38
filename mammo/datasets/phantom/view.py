"""Draws one view of a phantom breast: from anatomy to the stored pixels of its machine."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mammo.datasets.phantom.anatomy import (
    FIELD_HEIGHT_MM,
    Silhouette,
    distance_plane,
    outline_breast,
)
from mammo.datasets.phantom.canvas import Canvas
from mammo.datasets.phantom.lesions import draw_lesion
from mammo.datasets.phantom.texture import Plane, bell_noise, blur, bump, generator, smoothstep
from mammo.datasets.phantom.tissue import draw_implant, draw_tissue
from mammo.datasets.phantom.women import Breast, MammographyUnit, Woman
from mammo.imaging.geometry import Box

WHITE = 4095
"""The highest stored value of 12 bits."""


@dataclass(frozen=True)
class View:
    """A finished image with what is known about it; boxes in pixels of the stored image."""

    pixels: NDArray[np.uint16]  # (rows, columns), 12 bit stored values
    pixel_spacing_mm: float
    flipped: bool  # mirrored: the chest wall is at the right edge
    breast: Box
    lesions: tuple[tuple[str, Box], ...]


def draw_view(woman: Woman, breast: Breast, view: str, long_side: int) -> View:
    """Draw one view ("CC" or "MLO") of a breast.

    Args:
        woman: whose breast it is; her machine decides about size, noise and grey scale.
        breast: one of hers.
        view: CC or MLO.
        long_side: rows of the largest machine's images; the others are up to a fifth smaller.
    """
    machine = woman.machine
    rows = int(long_side * machine.scale / 8 + 0.5) * 8
    columns = int(rows * machine.width_to_height / 8 + 0.5) * 8
    pixel = FIELD_HEIGHT_MM / rows
    seen = outline_breast(breast.shape, view)
    key = 2 * "LR".index(breast.laterality) + ("CC", "MLO").index(view)
    rng = generator(woman.seed, 10 + key)
    light, skin, lesions = _draw_breast(woman, breast, seen, (rows, columns), pixel, rng)

    flipped = breast.laterality == "R" and not machine.always_left
    inside = np.argwhere(skin)
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
    box = Box(float(left), float(top), float(right), float(bottom))
    if flipped:
        light = light[:, ::-1]
        box = _mirror(box, columns)
        lesions = [(kind, _mirror(found, columns)) for kind, found in lesions]
    pixels = _expose(light, machine, rng)
    text = f"{breast.laterality} {view}"
    _burn_in(pixels, text, machine, label_at_left=flipped, low=bool(rng.integers(2)))
    return View(pixels, pixel, flipped, box, tuple(lesions))


def _mirror(box: Box, columns: int) -> Box:
    return Box(columns - box.x2, box.y1, columns - box.x1, box.y2)


def _draw_breast(
    woman: Woman,
    breast: Breast,
    seen: Silhouette,
    shape: tuple[int, int],
    pixel: float,
    rng: Generator,
) -> tuple[Plane, NDArray[np.bool_], list[tuple[str, Box]]]:
    """Brightness (air 0, white 1), the breast's mask, and the lesions with their boxes."""
    distance = distance_plane(seen, shape, pixel)
    tissue = draw_tissue(woman, breast, seen, distance, pixel, rng)
    chalk = np.zeros(shape, np.float32)
    canvas = Canvas(tissue, chalk, pixel, seen)
    lesions = []
    for lesion in breast.lesions:
        box = draw_lesion(canvas, lesion, 7 + ("CC", "MLO").index(seen.view))
        if box is not None:
            lesions.append((lesion.kind, box))
    if woman.implant:
        draw_implant(tissue, chalk, breast.shape, seen, pixel)

    # A compressed breast has a round edge: its thickness is that of a circle of this radius.
    rest = np.clip(1.0 - distance * (1 / 27.0), 0.0, 1.0)
    thickness = np.sqrt(1.0 - rest * rest)
    light = tissue * (0.12 + 0.88 * thickness) * smoothstep(-0.3, 1.2, distance)
    light += bump(np.square((distance - 0.9) * (1 / 0.9))) * 0.06
    light += chalk * (0.25 + 0.75 * thickness)
    nx, ny = seen.nipple
    light += _hill(shape, pixel, nx - 2.0, ny, 5.5) * 0.09 * smoothstep(-0.3, 1.0, distance)
    return light, distance > 0, lesions


def _hill(shape: tuple[int, int], pixel: float, x: float, y: float, radius: float) -> Plane:
    rows = (np.arange(shape[0], dtype=np.float32) * pixel)[:, None] - y
    columns = (np.arange(shape[1], dtype=np.float32) * pixel)[None, :] - x
    return bump((rows * rows + columns * columns) * (1 / (radius * radius)))


def _expose(light: Plane, machine: MammographyUnit, rng: Generator) -> NDArray[np.uint16]:
    """Film curve, noise and the machine's grey scale: 12 bit stored values."""
    # A soft shoulder keeps white from clipping and a toe keeps the air black.
    bent = np.clip(light, 0.0, 1.4)
    bent = bent * (1.32 - 0.32 * bent)
    noise = bell_noise(rng, light.shape)
    if not machine.sharp:
        noise = blur(noise) * 2.0  # the blur leaves 3/8 of the deviation
    # Quantum noise grows with the square root of what passes: of the brightness.
    sigma = machine.noise * (0.12 + 1.55 * np.sqrt(bent))
    values = bent * float(machine.gain) + noise * sigma + float(machine.offset)
    stored = np.rint(np.clip(values, 0.0, float(WHITE))).astype(np.uint16)
    return (WHITE - stored).astype(np.uint16) if machine.inverted else stored


_GLYPHS = {
    "L": ("1....", "1....", "1....", "1....", "1....", "1....", "11111"),
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "C": (".1111", "1....", "1....", "1....", "1....", "1....", ".1111"),
    "M": ("1...1", "11.11", "1.1.1", "1.1.1", "1...1", "1...1", "1...1"),
    "O": (".111.", "1...1", "1...1", "1...1", "1...1", "1...1", ".111."),
    " ": (".....",) * 7,
}
"""The letters of the side and view markers, as five by seven dots."""


def _burn_in(
    pixels: NDArray[np.uint16], text: str, machine: MammographyUnit, label_at_left: bool, low: bool
) -> None:
    """Write the marker into the corner away from the chest wall."""
    dot = max(pixels.shape[0] // 300, 1)
    rows = ["".join(_GLYPHS[letter][row] + "." for letter in text) for row in range(7)]
    dots = np.array([[character == "1" for character in row] for row in rows])
    stamp = np.repeat(np.repeat(dots, dot, axis=0), dot, axis=1)
    height, width = stamp.shape
    margin = pixels.shape[0] // 40
    top = pixels.shape[0] - margin - height if low else margin
    left = margin if label_at_left else pixels.shape[1] - margin - width
    white = WHITE - 120
    pixels[top : top + height, left : left + width][stamp] = (
        WHITE - white if machine.inverted else white
    )
