"""Images keep their aspect and position; augmentation depends on its seeds and on nothing else."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mammo.base.errors import UserError
from mammo.base.settings import Classifier, load_params
from mammo.classifier.inputs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Epoch,
    Pictures,
    UnchangedEpoch,
    build_loader,
    change_batch,
    count_in_epoch,
    label_rois,
    load_epoch,
    repeat_positives,
    to_input,
)
from mammo.imaging.fitting import fit_in_frame

DEFAULTS = load_params().classifier
CPU = torch.device("cpu")
RNG = np.random.default_rng


def settings(**changes: object) -> Classifier:
    tiny = {"image_height": 64, "image_width": 48, "batch_size": 4}
    return Classifier.model_validate(DEFAULTS.model_dump() | tiny | changes)


def roi(seed: int, height: int = 90, width: int = 50) -> np.ndarray:
    return RNG(seed).integers(0, 256, (height, width), np.uint8)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(8, 200),
    st.integers(8, 200),
)
def test_the_roi_just_fits_at_the_top_left(w: int, h: int, height: int, width: int) -> None:
    picture, placement = fit_in_frame(np.full((h, w), 255, np.uint8), width, height)
    right, bottom = placement.width, placement.height
    assert picture.shape == (height, width)
    assert right == width or bottom == height
    assert (picture[:bottom, :right] == 255).all()
    assert picture.sum() == 255 * right * bottom


def test_scaling_down_averages() -> None:
    checks = np.indices((100, 60)).sum(axis=0) % 2 * 200
    assert (fit_in_frame(checks.astype(np.uint8), 30, 50)[0] == 100).all()


def test_the_input_is_normalised_as_imagenet_was() -> None:
    inputs = to_input(np.full((64, 20), 255, np.uint8), 64, 48)
    assert inputs.shape == (3, 64, 48)
    assert inputs.dtype == torch.float32
    for channel, mean, std in zip(inputs, IMAGENET_MEAN, IMAGENET_STD, strict=True):
        assert channel[0, 0] == pytest.approx((1 - mean) / std, rel=1e-6)
        assert channel[0, 47] == pytest.approx(-mean / std, rel=1e-6)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 5))
def test_positives_are_repeated_and_negatives_are_not(
    negatives: int, positives: int, factor: float
) -> None:
    targets = RNG(negatives).permutation(np.repeat([0, 1], [negatives, positives]))
    order = repeat_positives(targets, factor, RNG(0))
    times = np.bincount(order, minlength=len(targets))
    assert (times[targets == 0] == 1).all()
    assert set(times[targets == 1]) <= {int(factor), int(factor) + 1}
    assert times[targets == 1].sum() == pytest.approx(factor * positives, abs=0.5)


TARGETS = np.array([0, 1, 0, 0, 1, 0, 0])


def batches(wanted: Classifier, seed: int, epoch: int) -> list[torch.Tensor]:
    pictures = Pictures([roi(number) for number in range(7)], wanted)
    return [
        tensor
        for batch in build_loader(
            Epoch(pictures, TARGETS, wanted, seed, epoch), wanted.batch_size, CPU
        )
        for tensor in batch
    ]


@pytest.mark.parametrize("balance", ["none", "upsample", "weight"])
@pytest.mark.parametrize("factor", [0.6, 1.0, 2.5, 3.3])
def test_an_epoch_has_as_many_pictures_as_are_counted_beforehand(
    balance: str, factor: float
) -> None:
    wanted = settings(balance=balance, balance_factor=factor)
    pictures = Pictures([roi(number) for number in range(7)], wanted)
    assert count_in_epoch(TARGETS, wanted) == len(Epoch(pictures, TARGETS, wanted, 5, 1))


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_depends_on_its_seeds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = settings(balance="upsample", balance_factor=2.5)
    first = batches(wanted, 5, 1)
    targets = torch.cat(first[1::2])
    assert targets.dtype == torch.float32
    assert targets.sum() == 5
    assert len(targets) == 10
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert same(first, batches(wanted, 5, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first, batches(wanted, 5, 2))
    assert not same(first, batches(wanted, 6, 1))
    # Images read by worker processes, not from memory.
    monkeypatch.setattr("mammo.classifier.inputs.CACHE_BYTES", 0)
    assert same(first, batches(wanted, 5, 1))


def test_changed_on_the_device_pictures_are_what_they_are_when_changed_as_they_load() -> None:
    wanted = settings(balance="upsample", balance_factor=2.5)
    pictures = Pictures([roi(number) for number in range(7)], wanted)
    epoch = Epoch(pictures, TARGETS, wanted, 5, 1)
    unchanged = build_loader(UnchangedEpoch(epoch), wanted.batch_size, CPU)
    both = zip(load_epoch(epoch, wanted, CPU, ""), unchanged, strict=True)
    for (one, targets, counted), batch in both:
        other, same_targets = change_batch(batch, CPU)
        assert counted == (len(one), len(one))
        assert torch.equal(targets, same_targets)
        apart = one.int() - other.int()
        assert apart.abs().max() <= 2
        assert (apart != 0).float().mean() < 0.01


def test_without_upsampling_each_image_comes_once() -> None:
    wanted = settings(balance="weight", balance_factor=3.0)
    assert len(torch.cat(batches(wanted, 1, 1)[1::2])) == 7


def test_files_and_pixels_are_the_same(tmp_path: Path) -> None:
    pixels = roi(1)
    path = tmp_path / "roi.png"
    cv2.imwrite(str(path), pixels)
    pictures = Pictures([path, pixels], settings())
    assert np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize(("content", "fault"), [(None, "cannot be read"), (b"", "not an image")])
def test_a_bad_image_is_named(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "roi.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=fault) as error:
        Pictures([path], settings())
    assert str(path) in str(error.value)


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    manifest = pd.DataFrame(
        {
            "image_id": ["1", "2", "3"],
            "patient_id": ["a", "a", "b"],
            "laterality": ["L", "R", "L"],
            "cancer": [0, 1, 0],
            "biopsy": [0, 0, 1],
        }
    )
    split = pd.DataFrame({"patient_id": ["a", "b"], "split": ["train", "test"]})
    rois = pd.DataFrame(
        {
            "patient_id": ["b", "a", "a"],
            "image_id": ["3", "2", "1"],
            "path": ["b/3.png", "a/2.png", "a/1.png"],
        }
    )
    return manifest, split, rois


def test_examples_join_labels_and_splits() -> None:
    table = label_rois(*tables(), settings(target=["cancer", "biopsy"]))
    assert list(table["image_id"]) == ["1", "2", "3"]
    assert list(table["target"]) == [0, 1, 1]
    assert list(table["split"]) == ["train", "train", "test"]
    assert list(table["path"]) == ["a/1.png", "a/2.png", "b/3.png"]
    assert list(label_rois(*tables(), settings(target=["cancer"]))["target"]) == [0, 1, 0]


@pytest.mark.parametrize("missing", ["manifest", "split"])
def test_an_roi_that_nobody_knows_is_refused(missing: str) -> None:
    manifest, split, rois = tables()
    if missing == "manifest":
        manifest = manifest[manifest["image_id"] != "3"]
    else:
        split = split[split["patient_id"] != "b"]
    with pytest.raises(UserError, match="such as 3; run the stages"):
        label_rois(manifest, split, rois, settings())
