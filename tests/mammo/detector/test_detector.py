"""The YOLO breast detector, untrained: saving, loading, finding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.detector.detector import (
    Detector,
    build_detector,
    load_detector,
    save_detector,
)
from mammo.imaging.fitting import fit_in_frame
from tests.support.half_ellipses import half_ellipse


@pytest.fixture(scope="module")
def detector() -> Detector:
    pin(0, threads=1)
    return build_detector("yolo11n.yaml", image_size=64)


@pytest.fixture
def saved(detector: Detector, tmp_path: Path) -> Path:
    save_detector(detector, tmp_path)
    return tmp_path


def test_a_loaded_detector_finds_what_the_saved_one_found(detector: Detector, saved: Path) -> None:
    images = [half_ellipse(seed)[0] for seed in range(4)]
    loaded = load_detector(saved)
    assert loaded.find(images) == detector.find(images)
    assert not loaded.model.training
    dtypes = {value.dtype for value in loaded.model.state_dict().values()}
    assert dtypes == {torch.float32, torch.int64}  # int64: batch norm's counters


def test_an_image_is_found_the_same_alone_and_among_others(detector: Detector) -> None:
    images = [half_ellipse(seed, 40 + 10 * seed, 90)[0] for seed in range(4)]
    assert detector.find(images) == [detector.find([i])[0] for i in images]
    assert detector.find([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (500, 31)])
def test_a_found_box_lies_in_the_image(detector: Detector, shape: tuple[int, int]) -> None:
    [found] = detector.find([np.full(shape, 100, np.uint8)])
    if found is not None:
        assert found.box == found.box.clip(shape[1], shape[0])
        assert found.box.area > 0
        assert 0 < found.confidence <= 1


def test_nothing_is_found_where_no_score_is_high_enough(saved: Path) -> None:
    detector = load_detector(saved)
    layers: Any = detector.model.model
    for branch in layers[-1].cv3:
        branch[-1].bias.fill_(-50)
    assert detector.find([half_ellipse(0)[0]]) == [None]


def test_a_square_holds_the_image_at_its_top_left_and_black() -> None:
    square, placement = fit_in_frame(np.full((50, 100), 200, np.uint8), 64, 64)
    assert square.shape == (64, 64)
    assert (placement.width, placement.height) == (64, 32)
    assert (square[:32] == 200).all()
    assert (square[32:] == 0).all()


def test_missing_and_broken_files_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*architecture\.json"):
        load_detector(tmp_path / "nowhere")
    (saved / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
        load_detector(saved)
    (saved / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: there is no such file"):
        load_detector(saved)
    (saved / "architecture.json").write_text("{}")
    with pytest.raises(UserError, match=r"architecture\.json: is not a detector's arch"):
        load_detector(saved)


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    weights["model.0.conv.weight"] = torch.zeros(8, 3, 3, 3)  # of another width
    save_file(weights, saved / "weights.safetensors")
    with pytest.raises(
        UserError, match=r"weights\.safetensors: does not hold the weights of yolo11n"
    ):
        load_detector(saved)
