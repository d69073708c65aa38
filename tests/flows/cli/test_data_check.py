"""`mammoflow data check`: what a data manager is told before `dvc add`."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner, Result

from flows.cli.app import app
from mammo.datasets.phantom.draw import write_phantoms
from tests.imports import ROOT
from tests.support.dicoms import half_breast, plain


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, women=2, workers=1, long_side=128)
    return folder


@pytest.fixture
def data(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to do harm to, in a folder with settings."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def check(folder: Path) -> Result:
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_good_data_are_in_order_and_left_as_they_are(data: Path) -> None:
    before = content(data)
    result = check(data)
    assert result.exit_code == 0, result.output
    assert "8 of 8 images of 2 women can be read; everything is in order." in result.output
    assert "To be mended" not in result.output
    assert "burnt into the pixels" not in result.output
    assert content(data) == before
    assert {path.name for path in data.parent.iterdir()} == {"data", "params.yaml"}


def test_everything_wrong_is_said_at_once(data: Path) -> None:
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    _, second, _, fourth, *_ = labels["image_id"]
    patient = labels["patient_id"][0]
    images = data / "train_images"
    (images / patient / f"{second}.dcm").write_bytes(b"GIF89a")
    (images / patient / "stray [x].dcm").write_bytes(b"1")
    labels.loc[0, "laterality"] = "R" if labels["laterality"][0] == "L" else "L"
    labels.loc[7, "view"] = "ML"
    labels.to_csv(data / "train.csv", index=False)
    (data / "lesions.csv").write_text("image_id,x1,y1,x2,y2,kind\nnobody,0,0,5,5,mass\n")
    (data / "breast_boxes.csv").write_text(f"image_id,x1,y1,x2,y2\n{fourth},9,0,5,5\n")
    result = check(data)
    assert result.exit_code == 1
    known = result.output.index("To be known")
    mended = result.output[:known]
    for said in (
        "it is not a DICOM file",
        "its header says",
        "a file that no row of train.csv names",
        "stray [x].dcm",
        "breast_boxes.csv: x1 must be less than x2",
        "line 2",
        f"{patient}/{second}",
    ):
        assert said in mended
    for said in ("another view than train.csv", "a box of an image that train.csv lacks"):
        assert said in result.output[known:]
    assert "6 of 8 images of 2 women can be read; something must be mended." in result.output


def test_a_copy_is_named_with_its_original(data: Path) -> None:
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    one, two = labels.iloc[0], labels.iloc[4]
    assert one["patient_id"] != two["patient_id"]
    images = data / "train_images"
    labels.loc[4, "laterality"] = one["laterality"]
    labels.to_csv(data / "train.csv", index=False)
    shutil.copyfile(
        images / one["patient_id"] / f"{one['image_id']}.dcm",
        images / two["patient_id"] / f"{two['image_id']}.dcm",
    )
    result = check(data)
    assert result.exit_code == 1
    assert (
        f"the SOP Instance UID of {one['image_id']} of another patient, {one['patient_id']}"
        in result.output
    )


def test_faults_of_the_table_do_not_keep_the_files_from_being_read(data: Path) -> None:
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    labels.loc[[1, 2], "cancer"] = "maybe"
    labels.loc[3, "patient_id"] = "../../x"
    labels.to_csv(data / "train.csv", index=False)
    result = check(data)
    assert result.exit_code == 1
    assert "train.csv: cancer: 'maybe' must be 0 or 1" in result.output
    assert "line 3, line 4" in result.output
    assert "train.csv: patient_id: '../../x' is no id" in result.output
    assert "5 of 5 images of 2 women can be read" in result.output


def test_burnt_in_text_is_said_where_the_header_says_it_and_the_rest_is_counted(
    data: Path,
) -> None:
    yes, *unsaid = sorted((data / "train_images").rglob("*.dcm"))[:4]
    for path, annotation in ((yes, "YES"), *((path, None) for path in unsaid)):
        file = pydicom.dcmread(path)
        if annotation is None:
            del file.BurnedInAnnotation
        else:
            file.BurnedInAnnotation = annotation
        file.save_as(path)
    result = check(data)
    assert result.exit_code == 0, result.output
    rows = [re.split(r"\s*│\s*", line)[1:4] for line in result.output.splitlines() if "│" in line]
    burnt = [row for row in rows if "burnt into the pixels" in row[0]]
    assert [(count, where.count("/")) for _, count, where in burnt] == [("3", 3), ("1", 1)]
    assert f"{yes.parent.name}/{yes.stem}" in burnt[1][2]


def test_a_window_for_other_values_is_to_be_known(data: Path) -> None:
    path = sorted((data / "train_images").rglob("*.dcm"))[0]
    file = pydicom.dcmread(path)
    file.WindowCenter, file.WindowWidth = 60000, 256
    file.save_as(path)
    result = check(data)
    assert result.exit_code == 0, result.output
    (line,) = (row for row in result.output.splitlines() if "its header's window" in row)
    assert "is not used" in line
    assert f"{path.parent.name}/{path.stem}" in line


def test_one_woman_under_two_ids_is_to_be_known(data: Path) -> None:
    for path in (data / "train_images").rglob("*.dcm"):
        file = pydicom.dcmread(path)
        file.PatientID = "4711"
        file.save_as(path)
    assert "one PatientID" not in check(data).output  # an anonymiser's, for all of them
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    third = labels.iloc[[0]].assign(patient_id="third", image_id="3")
    pd.concat([labels, third]).to_csv(data / "train.csv", index=False)
    (data / "train_images/third").mkdir()
    about = {"ImageLaterality": third["laterality"].item(), "WindowWidth": 4096}
    third_breast = half_breast()
    if about["ImageLaterality"] == "R":
        third_breast = third_breast[:, ::-1]
    others = labels.loc[labels["patient_id"] != labels["patient_id"][0], ["patient_id", "image_id"]]
    for patient, image in others.itertuples(index=False):
        path = data / "train_images" / patient / f"{image}.dcm"
        file = pydicom.dcmread(path)
        file.PatientID = "4712"
        file.save_as(path)
    new = plain(np.ascontiguousarray(third_breast), **about | {"PatientID": "4711"})
    (data / "train_images/third/3.dcm").write_bytes(new)
    result = check(data)
    assert "they may be one woman, in two splits" in re.sub(r"[\s│]+", " ", result.output)


def test_a_missing_column_hides_nothing_else(data: Path) -> None:
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    first, second = labels["patient_id"][0], labels["image_id"][0]
    (data / "train_images" / first / f"{second}.dcm").write_bytes(b"GIF89a")
    labels.drop(columns=["laterality", "density"]).to_csv(data / "train.csv", index=False)
    result = check(data)
    assert result.exit_code == 1
    for said in (
        "train.csv: the column laterality is missing",
        "train.csv: the column density is missing",
        "it is not a DICOM file",
        "7 of 8 images of 2 women can be read",
    ):
        assert said in result.output


def test_without_the_ids_no_image_is_looked_at_and_that_is_said(data: Path) -> None:
    labels = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    labels.drop(columns="image_id").to_csv(data / "train.csv", index=False)
    result = check(data)
    assert result.exit_code == 1
    assert "train.csv: the column image_id is missing" in result.output
    assert "not looked at: train.csv does not name them" in result.output
    assert "0 of 8 images of 0 women can be read" in result.output


@pytest.mark.parametrize("harm", ["no table", "no rows"])
def test_what_is_no_data_set_is_one_sentence(data: Path, harm: str) -> None:
    if harm == "no table":
        (data / "train.csv").unlink()
    else:
        header = (data / "train.csv").read_text().splitlines()[0]
        (data / "train.csv").write_text(header + "\n")
    result = check(data)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "train.csv" in result.output
