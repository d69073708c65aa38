"""The stage that makes images of DICOM files: what it writes, refuses, and promises."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params
from mammo.data.tables import BREAST_BOXES, LESIONS, MANIFEST, REJECTS, read_table
from stages import preprocess
from tests.support.dicoms import PERSON, half_breast, jpeg_2000, jpeg_lossless, plain, rle

WRITERS = (plain, jpeg_2000, jpeg_lossless, rle)


def tiny(**update: object) -> Params:
    params = load_params()
    section = params.preprocess.model_copy(update={"long_side": 128, **update})
    return params.model_copy(update={"preprocess": section})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three women, four images each, in four encodings; rows in no order; boxes of one image."""
    folder = tmp_path / "data"
    rows = []
    for number in range(12):
        patient, image = str(30 - number // 4), f"{(7 * number) % 12:04d}"
        side, view = "LR"[number % 2], ("CC", "MLO")[number // 2 % 2]
        pixels = half_breast(200, 160 + number)
        if side == "R":
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        path = folder / "train_images" / patient / f"{image}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WRITERS[number % 4](pixels, ImageLaterality=side, ViewPosition=view))
        rows.append(
            {
                "site_id": 1, "patient_id": patient, "image_id": image, "laterality": side,
                "view": view, "age": 61 if number else "", "cancer": number % 2, "biopsy": 0,
                "invasive": 0, "BIRADS": "", "implant": 0, "density": "B", "machine_id": 29,
                "difficult_negative_case": 0,
            }
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    (folder / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n0000,0,40,96,160\n")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_outputs_and_that_the_number_of_workers_changes_nothing(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    preprocess.run(tiny(), data, one, workers=0)  # in this process
    preprocess.run(tiny(), data, two, workers=2)
    assert content(one) == content(two)

    manifest = read_table(one / "manifest.csv", MANIFEST)
    train = pd.read_csv(data / "train.csv", dtype=str)
    assert list(manifest["image_id"]) == list(train["image_id"])
    assert manifest["age"].isna().sum() == 1
    for row in manifest.to_dict("records"):
        image = cv2.imread(str(one / "images" / row["path"]), cv2.IMREAD_UNCHANGED)
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


def test_nothing_personal_comes_out(data, tmp_path, capfd):
    (data / "train_images" / "30" / "0000.dcm").write_bytes(plain(half_breast(), NumberOfFrames=3))
    preprocess.run(tiny(max_reject_fraction=0.5), data, tmp_path / "out", workers=0)
    everything = b"".join(content(tmp_path / "out").values()).decode("latin-1")
    everything += "".join(capfd.readouterr())
    for secret in (*PERSON.values(), "Doe", str(tmp_path)):
        assert secret not in everything


def test_rejects_are_listed(data, tmp_path):
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


def test_too_many_rejects_end_the_stage(data, tmp_path, capsys):
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


def test_no_image_at_all_is_too_many_whatever_the_setting(data, tmp_path):
    shutil.rmtree(data / "train_images")
    with pytest.raises(UserError, match="12 of 12"):
        preprocess.run(tiny(max_reject_fraction=1.0), data, tmp_path / "out", workers=0)


def test_another_view_in_the_header_is_counted(data, tmp_path):
    table = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    table.loc[[3, 4], "view"] = "ML"
    table.to_csv(data / "train.csv", index=False)
    preprocess.run(tiny(), data, tmp_path / "out", workers=0)
    assert read_json(tmp_path / "out" / "metrics.json")["view_differs"] == 2


def test_an_empty_table_is_refused(data, tmp_path):
    header = (data / "train.csv").read_text().splitlines()[0]
    (data / "train.csv").write_text(header + "\n")
    with pytest.raises(UserError, match=r"train\.csv: there are no images"):
        preprocess.run(tiny(), data, tmp_path / "out", workers=0)


def test_wrong_boxes_are_refused(data, tmp_path):
    (data / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n0000,90,40,20,160\n")
    with pytest.raises(UserError, match=r"breast_boxes\.csv.*x1 must be less"):
        preprocess.run(tiny(), data, tmp_path / "out", workers=0)


def test_a_failing_run_leaves_the_last_outputs(data, tmp_path, monkeypatch):
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preprocess, "DATA", data)
    monkeypatch.setattr(preprocess, "available_cores", lambda: 0)
    preprocess.main()
    before = content(tmp_path / "outputs")
    assert "preprocess/manifest.csv" in before
    shutil.rmtree(data / "train_images")
    with pytest.raises(UserError):
        preprocess.main()
    assert content(tmp_path / "outputs") == before
