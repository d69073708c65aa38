"""The stage train_detector on a handful of half-ellipses."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo.base.atomic_files import read_json, write_csv
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params
from mammo.data.tables import BREAST_BOXES
from mammo.detector.detector import load_detector
from mammo.detector_training.trainer import Example
from stages.train_detector import run
from tests.support.tiny_mammograms import write_preprocessed, write_split

FILES = ["architecture.json", "curves.csv", "metrics.json", "preview.png", "weights.safetensors"]


@pytest.fixture(scope="module")
def params() -> Params:
    params = load_params()
    tiny = {"image_size": 64, "epochs": 1, "batch_size": 4, "weights": "none"}
    return params.model_copy(update={"detector": params.detector.model_copy(update=tiny)})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Six women with one image each; the last is a test woman."""
    write_preprocessed(tmp_path / "preprocess", women=6)
    write_split(tmp_path / "split.csv", ["train"] * 3 + ["validation"] * 2 + ["test"])
    return tmp_path


def train(params: Params, project: Path, out: str = "out") -> Path:
    """Run the stage as its main does."""
    folder = project / out
    folder.mkdir()
    pin(params.seed, threads=1)
    run(params, project / "preprocess", project / "split.csv", folder)
    return folder


def test_two_runs_write_the_same_bytes(params: Params, project: Path) -> None:
    first, second = train(params, project, "first"), train(params, project, "second")
    assert sorted(path.name for path in first.iterdir()) == FILES
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name

    metrics = read_json(first / "metrics.json")
    assert metrics["labels"] == "breast_boxes.csv"
    assert (metrics["train_images"], metrics["train_women"]) == (3, 3)
    assert (metrics["validation_images"], metrics["validation_women"]) == (2, 2)
    assert metrics["best_epoch"] == 1
    for name in ("map50", "map50_95", "mean_iou"):
        assert 0 <= metrics[name] <= 1

    curves = pd.read_csv(first / "curves.csv")
    assert list(curves["epoch"]) == [1]
    assert curves["map50"].item() == metrics["map50"]
    preview = cv2.imread(str(first / "preview.png"))
    assert preview is not None
    assert preview.max() > 100
    load_detector(first).find([np.zeros((70, 50), np.uint8)])


def test_without_labelled_boxes_the_breast_mask_labels(params: Params, project: Path) -> None:
    empty = pd.DataFrame(columns=list(BREAST_BOXES.columns))
    write_csv(project / "preprocess/breast_boxes.csv", empty)
    metrics = read_json(train(params, project) / "metrics.json")
    assert metrics["labels"] == "breast mask"
    assert metrics["train_images"] == 3


def test_images_without_a_box_are_left_out(params: Params, project: Path) -> None:
    table = project / "preprocess/breast_boxes.csv"
    write_csv(table, pd.read_csv(table, dtype=str).iloc[1:])
    metrics = read_json(train(params, project) / "metrics.json")
    assert (metrics["train_images"], metrics["validation_images"]) == (2, 2)


@pytest.mark.parametrize(("kept", "lacking"), [(slice(0, 3), "validation"), (slice(3, 6), "train")])
def test_a_split_without_a_box_is_named(
    params: Params, project: Path, kept: slice, lacking: str
) -> None:
    table = project / "preprocess/breast_boxes.csv"
    write_csv(table, pd.read_csv(table, dtype=str).iloc[kept])
    with pytest.raises(UserError, match=rf"breast_boxes\.csv: no image of a {lacking} woman"):
        train(params, project)


def test_a_box_outside_its_image_is_named(params: Params, project: Path) -> None:
    table = project / "preprocess/breast_boxes.csv"
    boxes = pd.read_csv(table, dtype={"image_id": str})
    boxes.loc[0, ["x1", "x2"]] = [9000, 9100]
    write_csv(table, boxes)
    with pytest.raises(UserError, match=r"breast_boxes\.csv: the box of image 00 lies outside"):
        train(params, project)


def test_boxes_reach_the_detector_in_pixels_of_the_image(
    params: Params, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored images are twice as large, every other one mirrored."""
    seen = []

    def look(train: list[Example], validation: list[Example], *_: object) -> None:
        seen.extend([*train, *validation])
        raise UserError("seen enough")

    monkeypatch.setattr("stages.train_detector.train_detector", look)
    with pytest.raises(UserError, match="seen enough"):
        train(params, project)
    assert len(seen) == 5
    for example in seen:
        image = cv2.imread(str(example.image), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        bright = image > 75
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        assert (example.box.x1, example.box.y1) == (0, rows[0])
        assert (example.box.x2, example.box.y2) == (columns[-1] + 1, rows[-1] + 1)
