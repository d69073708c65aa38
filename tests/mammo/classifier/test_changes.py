"""Changes stay within their ranges, and both renderers apply them alike."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mammo.base.settings import Augment, load_params
from mammo.classifier.changes import draw_change, render, render_batch

STILL = Augment(**dict.fromkeys(Augment.model_fields, 0.0))
WILD = Augment(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=45.0,
    zoom=0.5,
    shift=0.5,
    brightness=0.5,
    contrast=0.5,
)
RNG = np.random.default_rng


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return RNG(seed).integers(0, 256, (height, width), np.uint8)


def changed(picture: np.ndarray, settings: Augment, seed: int) -> np.ndarray:
    """A picture changed by both renderers, which must agree; OpenCV's."""
    height, width = picture.shape
    change = draw_change(height, width, settings, RNG(seed))
    result = render(picture, change)
    apart = result.astype(int) - rendered_by_torch([picture], settings, [seed])[0]
    assert np.abs(apart).max() <= 2
    return result


def rendered_by_torch(
    pictures: list[np.ndarray], settings: Augment, seeds: list[int]
) -> np.ndarray:
    height, width = pictures[0].shape
    rows = [draw_change(height, width, settings, RNG(seed)).to_row() for seed in seeds]
    stacked = torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(rows))
    return np.asarray(render_batch(*stacked).numpy())


def test_without_augmentation_nothing_changes() -> None:
    picture = noise(90, 50)
    assert np.array_equal(changed(picture, STILL, 1), picture)


@pytest.mark.parametrize(("flip", "axis"), [("horizontal_flip", 1), ("vertical_flip", 0)])
def test_a_sure_flip_mirrors_exactly(flip: str, axis: int) -> None:
    picture = noise(90, 50)
    flipped = changed(picture, STILL.model_copy(update={flip: 1.0}), 1)
    assert np.array_equal(flipped, np.flip(picture, axis))


@pytest.mark.parametrize(
    ("change", "most"),
    [("rotation", 10.0), ("zoom", 0.2), ("shift", 0.2), ("brightness", 0.3), ("contrast", 0.3)],
)
def test_each_change_changes_alone_and_within_its_range(change: str, most: float) -> None:
    canvas = np.zeros((101, 101), np.uint8)
    canvas[30:71, 40:61] = 120
    canvas[45:56, 45:56] = 160
    settings = STILL.model_copy(update={change: most})
    results = [changed(canvas, settings, seed) for seed in range(40)]
    assert len({result.tobytes() for result in results}) > 20
    bright = [result.max() for result in results]
    rows = [np.flatnonzero((result > 90).any(axis=1)) for result in results]
    heights = [row[-1] - row[0] + 1 for row in rows]
    if change == "brightness":
        assert min(bright) >= 160 * 0.7 - 1
        assert max(bright) <= 160 * 1.3 + 1
        assert max(bright) - min(bright) > 160 * 0.3
    elif change == "contrast":
        assert max(bright) <= 160 * 1.3 + 1
    elif change == "zoom":
        assert 41 * 0.8 - 2 <= min(heights) < 38
        assert 44 < max(heights) <= 41 * 1.2 + 2
    elif change == "shift":
        starts = [row[0] for row in rows]
        assert set(heights) <= {40, 41, 42}
        assert 30 - 21 <= min(starts) < 20
        assert 40 < max(starts) <= 30 + 21
    else:
        # 41 cos 10 deg + 21 sin 10 deg = 44.
        assert min(heights) >= 40
        assert 42 < max(heights) <= 46


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60))
def test_the_renderers_agree_within_rounding_however_wild_the_change(
    seed: int, height: int, width: int
) -> None:
    pictures = [noise(height, width, number) for number in range(3)]
    seeds = [seed, seed + 1, seed + 2]
    for settings in (WILD, load_params().classifier.augment):
        by_torch = rendered_by_torch(pictures, settings, seeds)
        for picture, number, theirs in zip(pictures, seeds, by_torch, strict=True):
            ours = render(picture, draw_change(height, width, settings, RNG(number)))
            assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_moved_alone_fewer_than_one_in_a_hundred_grey_levels_differ_and_those_by_one() -> None:
    settings = WILD.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    pictures = [noise(300, 200, number) for number in range(4)]
    by_torch = rendered_by_torch(pictures, settings, [0, 1, 2, 3])
    by_opencv = [
        render(picture, draw_change(300, 200, settings, RNG(seed)))
        for seed, picture in enumerate(pictures)
    ]
    apart = np.abs(np.stack(by_opencv).astype(int) - by_torch)
    assert apart.max() <= 1
    assert apart.mean() < 0.01


def test_in_a_batch_each_picture_gets_its_own_change() -> None:
    pictures = [noise(40, 30, number) for number in range(3)]
    together = rendered_by_torch(pictures, WILD, [7, 8, 9])
    for number, picture in enumerate(pictures):
        alone = rendered_by_torch([picture], WILD, [7 + number])
        assert np.array_equal(together[number], alone[0])
