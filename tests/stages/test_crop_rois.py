"""The stage crop_rois with a detector that has learnt nothing."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params
from mammo.data.reading import read_table
from mammo.data.tables import ROIS
from mammo.detector.detector import build_detector, save_detector
from stages.crop_rois import run
from tests.support.tiny_mammograms import write_preprocessed

WOMEN = 3


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three images, of which the last is black, and a detector."""
    write_preprocessed(tmp_path / "preprocess", WOMEN)
    black = tmp_path / "preprocess/images/02/02.png"
    cv2.imwrite(str(black), np.zeros((80, 64), np.uint8))
    pin(0, threads=1)
    (tmp_path / "detector").mkdir()
    save_detector(build_detector("yolo11n.yaml", 64), tmp_path / "detector")
    return tmp_path


def crop(project: Path, confidence: float, out: str = "out") -> Path:
    """Run the stage as its main does."""
    params: Params = load_params()
    crop = params.crop.model_copy(update={"confidence": confidence})
    folder = project / out
    folder.mkdir()
    pin(params.seed, threads=1)
    run(
        params.model_copy(update={"crop": crop}),
        project / "preprocess",
        project / "detector",
        folder,
    )
    return folder


def test_what_an_unsure_detector_misses_the_mask_finds_or_the_image_stays_whole(
    project: Path,
) -> None:
    out = crop(project, confidence=1.0)
    rois = read_table(out / "rois.csv", ROIS)
    assert list(rois["found_by"]) == ["mask", "mask", "whole"]
    assert rois["confidence"].isna().all()
    assert read_json(out / "metrics.json") == {
        "images": 3,
        "found_by": {"detector": 0, "mask": 2, "whole": 1},
        "mean_confidence": None,
    }
    assert rois[["x1", "y1", "x2", "y2"]].iloc[2].tolist() == [0, 0, 64, 80]


def test_the_detector_comes_first(project: Path) -> None:
    out = crop(project, confidence=0.0)
    rois = read_table(out / "rois.csv", ROIS)
    metrics = read_json(out / "metrics.json")
    by_detector = rois[rois["found_by"] == "detector"]
    assert len(by_detector) == metrics["found_by"]["detector"] > 0
    assert metrics["mean_confidence"] == pytest.approx(by_detector["confidence"].mean())


def test_a_crop_is_the_boxs_part_of_the_image(project: Path) -> None:
    out = crop(project, confidence=1.0)
    for roi in read_table(out / "rois.csv", ROIS).to_dict("records"):
        image = cv2.imread(str(project / "preprocess/images" / roi["path"]), cv2.IMREAD_GRAYSCALE)
        cropped = cv2.imread(str(out / "images" / roi["path"]), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        assert cropped is not None
        x1, y1, x2, y2 = (int(roi[side]) for side in ("x1", "y1", "x2", "y2"))
        assert np.array_equal(cropped, image[y1:y2, x1:x2])


def test_two_runs_write_the_same_bytes(project: Path) -> None:
    first, second = crop(project, 0.0, "first"), crop(project, 0.0, "second")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == WOMEN + 2
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_a_missing_image_is_named(project: Path) -> None:
    (project / "preprocess/images/01/01.png").unlink()
    with pytest.raises(UserError, match=r"01\.png: cannot be read"):
        crop(project, confidence=0.0)


def test_a_missing_detector_is_named(project: Path) -> None:
    (project / "detector/architecture.json").unlink()
    with pytest.raises(UserError, match=r"architecture\.json"):
        crop(project, confidence=0.0)
