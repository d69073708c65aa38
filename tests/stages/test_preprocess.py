"""The stage that makes images of DICOM files: what it writes, refuses, and promises."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import BREAST_BOXES, LESIONS, MANIFEST, REJECTS
from stages import preprocess
from tests.support.contents import contents
from tests.support.dicoms import PERSON, half_breast, plain
from tests.support.preprocessing import tiny


def test_outputs_and_that_the_number_of_workers_changes_nothing(data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    preprocess.run(tiny(), data, one, workers=0)  # in this process
    preprocess.run(tiny(), data, two, workers=2)
    assert contents(one) == contents(two)

    manifest = read_table(one / "manifest.csv", MANIFEST)
    train = pd.read_csv(data / "train.csv", dtype=str)
    assert list(manifest["image_id"]) == list(train["image_id"])
    assert manifest["age"].isna().sum() == 1
    for row in manifest.to_dict("records"):
        image = cv2.imread(str(one / "images" / row["path"]), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert image.dtype == np.uint8
        assert image.shape == (row["height"], row["width"])
        assert row["height"] == 128
        assert row["flipped"] == (row["laterality"] == "R")
        assert image[:, : row["width"] // 3].mean() > image[:, -row["width"] // 3 :].mean()
        assert row["path"] == f"{row['patient_id']}/{row['image_id']}.png"
    assert manifest["transfer_syntax"].nunique() == 4
    assert read_table(one / "rejects.csv", REJECTS).empty
    assert list(read_table(one / "breast_boxes.csv", BREAST_BOXES)["x2"]) == [96]
    assert read_table(one / "lesions.csv", LESIONS).empty
    assert read_json(one / "metrics.json") == {
        "images": 12, "rejects": 0, "patients": 3, "flipped": 6,
        "side_differs": 0, "view_differs": 0, "duplicates": 0, "secondary_captures": 0,
        "generated_2d": 0, "burned_in_annotation": 0, "header_ignored": 0,
        "patients_in_doubt": 0, "files_without_row": 0,
    }  # fmt: skip


def test_nothing_personal_comes_out(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "train_images" / "30" / "0000.dcm").write_bytes(plain(half_breast(), NumberOfFrames=3))
    preprocess.run(tiny(max_reject_fraction=0.5), data, tmp_path / "out", workers=0)
    everything = b"".join(contents(tmp_path / "out").values()).decode("latin-1")
    everything += "".join(capfd.readouterr())
    for secret in (*PERSON.values(), "Doe", str(tmp_path)):
        assert secret not in everything


def test_rejects_are_listed(data: Path, tmp_path: Path) -> None:
    images = data / "train_images"
    (images / "30" / "0000.dcm").unlink()
    (images / "29" / "0004.dcm").write_bytes(b"not an image")
    out = tmp_path / "out"
    preprocess.run(tiny(max_reject_fraction=0.2), data, out, workers=0)
    rejects = read_table(out / "rejects.csv", REJECTS).set_index("image_id")
    assert rejects.loc["0000", "patient_id"] == "30"
    assert rejects["reason"].to_dict() == {
        "0000": "there is no such file",
        "0004": "it is not a DICOM file",
    }
    manifest = read_table(out / "manifest.csv", MANIFEST)
    assert len(manifest) == 10
    assert not set(manifest["image_id"]) & {"0000", "0004"}
    metrics = read_json(out / "metrics.json")
    assert (metrics["images"], metrics["rejects"]) == (10, 2)


def test_too_many_rejects_end_the_stage(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((data / "train_images" / "28").iterdir()):
        path.write_bytes(b"not an image")
    next((data / "train_images" / "29").iterdir()).unlink()
    with pytest.raises(UserError) as caught:
        preprocess.run(tiny(max_reject_fraction=0.4), data, tmp_path / "out", workers=0)
    message = str(caught.value)
    assert "5 of 12 files" in message
    assert "max_reject_fraction" in message
    assert "(4 times): it is not a DICOM file" in message
    assert "train_images" in message
    assert capsys.readouterr().out.count("rejected 28/") == 4


def test_no_image_at_all_is_too_many_whatever_the_setting(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "train_images")
    with pytest.raises(UserError, match="12 of 12"):
        preprocess.run(tiny(max_reject_fraction=1.0), data, tmp_path / "out", workers=0)


def test_another_view_in_the_header_is_counted(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    table.loc[[3, 4], "view"] = "ML"
    table.to_csv(data / "train.csv", index=False)
    preprocess.run(tiny(), data, tmp_path / "out", workers=0)
    assert read_json(tmp_path / "out" / "metrics.json")["view_differs"] == 2


def test_an_empty_table_is_refused(data: Path, tmp_path: Path) -> None:
    header = (data / "train.csv").read_text().splitlines()[0]
    (data / "train.csv").write_text(header + "\n")
    with pytest.raises(UserError, match=r"train\.csv: there are no images"):
        preprocess.run(tiny(), data, tmp_path / "out", workers=0)


def test_wrong_boxes_are_refused(data: Path, tmp_path: Path) -> None:
    (data / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n0000,90,40,20,160\n")
    with pytest.raises(UserError, match=r"breast_boxes\.csv.*x1 must be less"):
        preprocess.run(tiny(), data, tmp_path / "out", workers=0)


def test_a_failing_run_leaves_the_last_outputs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preprocess, "DATA", data)
    monkeypatch.setattr(preprocess, "count_cores", lambda: 0)
    preprocess.main()
    before = contents(tmp_path / "outputs")
    assert "preprocess/manifest.csv" in before
    shutil.rmtree(data / "train_images")
    with pytest.raises(UserError):
        preprocess.main()
    assert contents(tmp_path / "outputs") == before
