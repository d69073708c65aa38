"""Finding the breast: side, mask and box, on drawn breasts and under film dirt and labels."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.imaging.breast_mask import find_breast_box, segment_breast, turn_left
from mammo.imaging.geometry import Box


def drawn(
    height: int, width: int, depth: float, tall: float, at: float = 0.5, inset: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A breast that hangs from the left, `inset` off the edge, and its true mask.

    All lengths as a share of the side. It is bright in the middle, fatty and dark outside.
    """
    y, x = np.mgrid[:height, :width]
    x = x - inset * width
    distance = np.hypot(x / (depth * width), (y - at * height) / (tall * height / 2))
    inside = (distance < 1) & (x >= 0)
    noise = np.random.default_rng(0).normal(0, 2, (height, width))
    grey = np.where(inside, 220 - 160 * distance, 4)
    return (grey + noise).clip(0, 255).astype(np.uint8), inside


shapes = st.fixed_dictionaries(
    {
        "height": st.integers(200, 700),
        "width": st.integers(150, 600),
        "depth": st.floats(0.3, 0.85),
        "tall": st.floats(0.35, 0.9),
        "at": st.floats(0.45, 0.55),
        "inset": st.sampled_from([0, 0, 0.05, 0.1]),
    }
)


@settings(max_examples=60)
@given(shapes)
def test_side_mask_and_box_follow_the_breast(shape: dict[str, Any]) -> None:
    pixels, truth = drawn(**shape)
    mask = segment_breast(pixels)
    assert mask.shape == pixels.shape
    assert mask.dtype == bool
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert overlap > 0.9
    y, x = np.nonzero(truth)
    true_box = Box(x.min(), y.min(), x.max() + 1, y.max() + 1)
    found = find_breast_box(pixels)
    assert found is not None
    assert found.iou(true_box) > 0.88
    turned, flipped = turn_left(pixels)
    assert not flipped
    assert turned is pixels


@settings(max_examples=40)
@given(shapes)
def test_turning_undoes_mirroring(shape: dict[str, Any]) -> None:
    pixels, _ = drawn(**shape)
    turned, flipped = turn_left(np.ascontiguousarray(pixels[:, ::-1]))
    assert flipped
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, pixels)
    again, flipped = turn_left(turned)
    assert not flipped
    np.testing.assert_array_equal(again, pixels)


@settings(max_examples=25)
@given(shapes)
def test_the_mask_mirrors_with_the_image(shape: dict[str, Any]) -> None:
    pixels, _ = drawn(**shape)
    mirrored = segment_breast(np.ascontiguousarray(pixels[:, ::-1]))[:, ::-1]
    mask = segment_breast(pixels)
    assert (mask ^ mirrored).sum() <= 0.01 * mask.sum()


def with_label(pixels: np.ndarray) -> None:
    cv2.putText(pixels, "LCC", (350, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 8)


def with_sticker(pixels: np.ndarray) -> None:
    pixels[20:120, 380:470] = 255


def with_film_edges(pixels: np.ndarray) -> None:
    pixels[:6] = pixels[-6:] = 255
    pixels[:, -6:] = 230


def with_scratches(pixels: np.ndarray) -> None:
    cv2.line(pixels, (10, 300), (490, 90), 200, 3)
    pixels[::40, ::40] = 255


@pytest.mark.parametrize(
    "spoil", [with_label, with_sticker, with_film_edges, with_scratches], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_dirt_is_not_breast(spoil: Callable[[np.ndarray], None], mirrored: bool) -> None:
    pixels, truth = drawn(640, 500, 0.55, 0.7)
    spoil(pixels)
    if mirrored:
        pixels, truth = np.ascontiguousarray(pixels[:, ::-1]), truth[:, ::-1]
    mask = segment_breast(pixels)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.88
    assert turn_left(pixels)[1] == mirrored


def test_the_mask_is_one_piece_without_holes() -> None:
    pixels, _ = drawn(800, 600, 0.6, 0.8)
    cv2.circle(pixels, (120, 400), 40, 0, -1)  # an air-dark hole
    cv2.circle(pixels, (500, 100), 50, 200, -1)  # an island
    mask = segment_breast(pixels).astype(np.uint8)
    assert cv2.connectedComponents(mask)[0] == 2
    # All background hangs together with the right edge, the breast being cut off on the left.
    assert cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1))[0] == 2


def test_a_dense_breast_keeps_its_fat() -> None:
    """Otsu on the grey itself would cut between fat and dense tissue."""
    pixels, truth = drawn(640, 500, 0.6, 0.8)
    pixels[truth] = 55
    cv2.ellipse(pixels, (0, 320), (150, 130), 0, -90, 90, 240, -1)
    mask = segment_breast(pixels)
    assert (mask & truth).sum() / truth.sum() > 0.95


def test_the_breast_is_found_on_a_background_that_is_not_black() -> None:
    """A few windows leave the background well above black."""
    pixels, truth = drawn(640, 500, 0.6, 0.8)
    lifted = (pixels * 0.75 + 60).astype(np.uint8)
    mask = segment_breast(lifted)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


@pytest.mark.parametrize("value", [0, 17, 255])
def test_in_an_even_image_there_is_no_breast(value: int) -> None:
    pixels = np.full((300, 200), value, np.uint8)
    assert not segment_breast(pixels).any()
    assert find_breast_box(pixels) is None
    turned, flipped = turn_left(pixels)
    assert not flipped
    assert turned is pixels


def test_specks_are_no_breast() -> None:
    pixels = np.zeros((300, 200), np.uint8)
    pixels[::30, ::30] = 255
    assert find_breast_box(pixels) is None


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_tiny_and_noisy_images_do_no_harm(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    assert segment_breast(pixels).shape == (height, width)
    turned, flipped = turn_left(pixels)
    np.testing.assert_array_equal(turned[:, ::-1] if flipped else turned, pixels)
    box = find_breast_box(pixels)
    assert box is None or box == box.clip(width, height)
