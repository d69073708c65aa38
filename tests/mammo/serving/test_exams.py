"""The numbers of the model are those of the stages, bit for bit, and a bad file costs itself."""

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mammo.base.atomic_files import read_json, write_bytes, write_csv
from mammo.base.determinism import pin
from mammo.datasets.phantom.draw import write_phantoms
from mammo.serving.exam_files import write_exam, write_heatmap
from mammo.serving.exams import UnreadFile, examine_files
from mammo.serving.finding import NOTICE, ImageFinding, Model, group_exams, read_schema
from mammo.serving.predictor import Predictor, load_predictor
from stages import crop_rois, evaluate, preprocess
from tests.support.learning import write_untrained_predictor

MODEL = Model("toy", None, None, None, "c0de")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_predictor(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load_predictor(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(data, women=6, seed=3, long_side=256)
    return data


@pytest.fixture(scope="module")
def images(predictor: Predictor, data: Path) -> list[ImageFinding]:
    pin(3, predictor.params.threads)
    found = list(examine_files(predictor, sorted(data.rglob("*.dcm")), workers=2))
    assert all(isinstance(one, ImageFinding) for one in found)
    return [one for one in found if isinstance(one, ImageFinding)]


def test_probabilities_are_those_of_the_stage_evaluate_bit_for_bit(
    predictor: Predictor, folder: Path, data: Path, images: list[ImageFinding], tmp_path: Path
) -> None:
    """That has its images from PNG files of two stages before it, and many at once."""
    params = predictor.params
    preprocess.run(params, data, tmp_path / "preprocess", workers=0)
    manifest = pd.read_csv(tmp_path / "preprocess/manifest.csv", dtype={"patient_id": str})
    women = manifest["patient_id"].unique()
    splits = ["train", "validation", "test"] * 2
    positive = manifest["patient_id"].isin(women[:3])  # each split needs both kinds
    write_csv(tmp_path / "manifest.csv", manifest.assign(cancer=positive.astype(int)))
    write_csv(tmp_path / "split.csv", pd.DataFrame({"patient_id": women, "split": splits}))
    crop_rois.run(params, tmp_path / "preprocess", folder / "detector", tmp_path / "crops")
    evaluate.run(
        params,
        tmp_path / "manifest.csv",
        tmp_path / "split.csv",
        tmp_path / "crops",
        folder / "classifier",
        tmp_path / "evaluate",
    )
    table = pd.read_csv(tmp_path / "evaluate/predictions.csv", dtype=str)
    expected = dict(zip(table["image_id"], table["probability"], strict=True))
    assert len(expected) == 16
    found = {Path(str(image.source)).stem: f"{image.probability:.9g}" for image in images}
    assert {name: found[name] for name in expected} == expected
    breasts = pd.read_csv(tmp_path / "evaluate/breasts.csv", dtype=str)
    evaluated = [image for image in images if Path(str(image.source)).stem in expected]
    exams = group_exams(evaluated, MODEL, None, params.evaluate.aggregate)
    assert len(exams) == 4
    assert sorted(breasts["probability"]) == sorted(
        f"{breast.probability:.9g}" for exam in exams for breast in exam.breasts
    )


def test_the_operating_point_is_the_threshold_of_the_registered_scores(
    folder: Path, tmp_path: Path
) -> None:
    assert load_predictor(folder).operating_point is None
    write_bytes(folder / "evaluate/metrics.json", b'{"threshold": {"breast": 0.25, "image": 0.5}}')
    try:
        point = load_predictor(folder).operating_point
        assert point is not None
        assert (point.threshold, point.chosen_on) == (0.25, "validation")
    finally:
        (folder / "evaluate/metrics.json").unlink()


def test_what_is_said_of_a_place_lies_in_the_stored_image(images: list[ImageFinding]) -> None:
    assert any(image.peak is not None for image in images)
    for image in images:
        box = image.box
        assert 0 <= box.x1 < box.x2 <= image.columns
        assert 0 <= box.y1 < box.y2 <= image.rows
        if image.peak is None or image.region is None:
            continue
        assert box.contains(image.peak.x, image.peak.y)
        assert 0 < image.peak.heat <= 1
        for x, y in image.region.points:
            assert box.x1 <= x <= box.x2
            assert box.y1 <= y <= box.y2
        assert image.region.box.grow(1).contains(image.peak.x, image.peak.y)


def test_files_that_cannot_be_read_and_copies_cost_themselves(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    good = min(data.rglob("*.dcm"))
    copy, bad, gone = tmp_path / "copy.dcm", tmp_path / "bad.dcm", tmp_path / "gone.dcm"
    copy.write_bytes(good.read_bytes())
    bad.write_bytes(good.read_bytes()[:2000])
    found = list(examine_files(predictor, [bad, good, gone, copy], workers=1))
    assert [one.number for one in found] == [1, 2, 3, 4]
    assert isinstance(found[1], ImageFinding)
    reasons = [one.reason for one in found if isinstance(one, UnreadFile)]
    assert len(reasons) == 3
    assert reasons[1] == "there is no such file"
    assert reasons[2].endswith("it is a copy")


def test_an_exam_becomes_a_document_and_its_heatmaps(
    predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    import jsonschema

    woman = min((data / "train_images").iterdir())
    found = list(examine_files(predictor, sorted(woman.iterdir()), workers=1, heatmap="picture"))
    images = [one for one in found if isinstance(one, ImageFinding)]
    for image in images:
        write_heatmap(tmp_path, image)
        assert image.heatmap is not None
        with Image.open(io.BytesIO(image.heatmap)) as picture:
            picture.load()  # checks each part's checksum
            assert picture.info["Disclaimer"] == NOTICE
    bare = [replace(image, heatmap=None) for image in images]
    (exam,) = group_exams(bare, MODEL, None, "max")
    path = write_exam(tmp_path, exam, identified=False, with_heatmap={1, 2, 3, 4})
    document = read_json(path)
    jsonschema.Draft202012Validator(read_schema()).validate(document)
    named = [image["heatmap"] for breast in document["breasts"] for image in breast["images"]]
    assert sorted(named) == sorted(file.name for file in path.parent.glob("*.png"))
    assert {name.rsplit("-", 1)[0] for name in named} == {"L-CC", "L-MLO", "R-CC", "R-MLO"}
    first = path.read_bytes()
    assert write_exam(tmp_path, exam, False, {1, 2, 3, 4}).read_bytes() == first
