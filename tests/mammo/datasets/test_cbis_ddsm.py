"""CBIS-DDSM as its archive gives it becomes our layout, whatever its files are called."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import LESIONS, TRAIN
from mammo.datasets.cbis_ddsm import convert_cbis_ddsm
from mammo.patches.tables import read_source

HEADER = {
    "mass": "patient_id,breast_density,left or right breast,image view,abnormality id,"
    "abnormality type,mass shape,mass margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path",
    "calc": "patient_id,breast density,left or right breast,image view,abnormality id,"
    "abnormality type,calc type,calc distribution,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path",
}


def write_file(path: Path, subject: str, pixels: NDArray[np.uint16], series: str = "") -> None:
    """A DICOM file as the archive has them: a secondary capture, called by the film's id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    uid = generate_uid(entropy_srcs=[str(path)])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.PatientID = dataset.PatientName = subject
    dataset.SeriesInstanceUID = series or generate_uid(entropy_srcs=[str(path.parent)])
    dataset.StudyInstanceUID = "1.2.3"
    dataset.Modality = "MG"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def film(height: int = 60, width: int = 40) -> NDArray[np.uint16]:
    return np.full((height, width), 9000, np.uint16)


def mask(x: int, y: int, height: int = 60, width: int = 40) -> NDArray[np.uint16]:
    """A mask that marks a square of ten pixels."""
    pixels = np.zeros((height, width), np.uint16)
    pixels[y : y + 10, x : x + 10] = 255
    return pixels


def row(kind: str, part: str, film_id: str, number: int, pathology: str, swapped: bool) -> str:
    """A line of a table; the paths are those of long ago, and the last one ends in a new line."""
    patient, side, view = film_id.rsplit("_", 2)
    subject = f"{kind.title()}-{part}_{film_id}"
    name = "calcification" if kind == "calc" else kind
    crop, marked = "000000.dcm", "000001.dcm"
    if swapped:
        crop, marked = marked, crop
    return (
        f"{patient},3,{side},{view},{number},{name},ROUND,SHARP,4,{pathology},4,"
        f"{subject}/1.2/1.3/000000.dcm,{subject}_{number}/1.2/1.4/{crop},"
        f'"{subject}_{number}/1.2/1.4/{marked}\n"'
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two women: one with three lesions in a film that is there twice, one with a large mask."""
    folder = tmp_path / "source"
    tables = {
        "mass_case_description_train_set.csv": [
            row("mass", "Training", "P_00001_LEFT_CC", 1, "MALIGNANT", swapped=False),
            row("mass", "Training", "P_00001_LEFT_CC", 2, "BENIGN", swapped=True),
            row("mass", "Training", "P_00001_LEFT_MLO", 1, "BENIGN_WITHOUT_CALLBACK", False),
        ],
        "mass_case_description_test_set.csv": [
            row("mass", "Test", "P_00002_RIGHT_CC", 1, "BENIGN", swapped=False)
        ],
        "calc_case_description_test_set.csv": [
            row("calc", "Test", "P_00001_LEFT_CC", 1, "MALIGNANT", swapped=True)
        ],
    }
    folder.mkdir()
    for name, rows in tables.items():
        (folder / name).write_text("\n".join([HEADER[name[:4]], *rows]) + "\n")
    positions = {
        "Mass-Training_P_00001_LEFT_CC_1": mask(5, 20),
        "Mass-Training_P_00001_LEFT_CC_2": mask(20, 40),
        "Mass-Training_P_00001_LEFT_MLO_1": mask(1, 1),
        "Calc-Test_P_00001_LEFT_CC_1": mask(30, 2),
        "Mass-Test_P_00002_RIGHT_CC_1": mask(20, 40, height=120, width=80),
    }
    for subject, marked in positions.items():
        # Crop and mask lie in one folder, called by nothing that tells them apart.
        first, second = film(12, 12), marked
        if "Calc" in subject:
            first, second = second, first
        write_file(folder / "CBIS-DDSM" / subject / "2016" / "1-1.dcm", subject, first)
        write_file(folder / "CBIS-DDSM" / subject / "2016" / "1-2.dcm", subject, second)
        whole = subject.rsplit("_", 1)[0]
        write_file(folder / "CBIS-DDSM" / whole / "07-20" / "1-1.dcm", whole, film())
    return folder


@pytest.fixture
def made(source: Path, tmp_path: Path) -> Path:
    convert_cbis_ddsm(source, tmp_path / "data")
    return tmp_path / "data"


def test_a_view_is_there_once_and_a_cancer_counts_for_the_breast(made: Path) -> None:
    table = read_table(made / "train.csv", TRAIN)
    assert table[["patient_id", "image_id", "laterality", "view", "cancer"]].values.tolist() == [
        ["P_00001", "P_00001_L_CC", "L", "CC", 1],
        ["P_00001", "P_00001_L_MLO", "L", "MLO", 1],  # only benign there, but the breast has one
        ["P_00002", "P_00002_R_CC", "R", "CC", 0],
    ]
    assert table["difficult_negative_case"].tolist() == [0, 0, 1]
    assert table["density"].tolist() == ["C", "C", "C"]
    assert read_source(made)["name"] == "CBIS-DDSM"


def test_every_lesion_has_the_box_of_its_mask(made: Path) -> None:
    lesions = read_table(made / "lesions.csv", LESIONS)
    found = lesions[lesions["image_id"] == "P_00001_L_CC"]
    assert sorted(found[["kind", "x1", "y1", "x2", "y2"]].values.tolist()) == [
        ["benign mass", 20, 40, 30, 50],
        ["calcifications", 30, 2, 40, 12],
        ["mass", 5, 20, 15, 30],
    ]


def test_a_mask_of_another_size_is_scaled_to_the_film(made: Path) -> None:
    lesions = read_table(made / "lesions.csv", LESIONS)
    [box] = lesions.loc[lesions["image_id"] == "P_00002_R_CC", ["x1", "y1", "x2", "y2"]].values
    assert box.tolist() == [10, 20, 15, 25]


def test_a_film_keeps_its_pixels_and_gets_the_womans_id(made: Path) -> None:
    files = sorted((made / "train_images" / "P_00001").iterdir())
    assert [file.name for file in files] == ["P_00001_L_CC.dcm", "P_00001_L_MLO.dcm"]
    for file in files:
        dataset = pydicom.dcmread(file)
        assert (dataset.PatientID, str(dataset.PatientName)) == ("P_00001", "P_00001")
        assert np.array_equal(dataset.pixel_array, film())


def test_converted_twice_it_is_the_same_to_the_byte(
    made: Path, source: Path, tmp_path: Path
) -> None:
    convert_cbis_ddsm(source, tmp_path / "again")
    files = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
    assert len(files) == 6
    for file in files:
        assert (made / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def remove(pattern: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        for path in source.rglob(pattern):
            path.unlink()

    return spoil


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / name
        path.write_text(path.read_text().replace(old, new))

    return spoil


TABLE = "mass_case_description_train_set.csv"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (remove("*.csv"), "holds none of mass_case_description_train_set.csv"),
        (replace(TABLE, "pathology", "result"), f"{TABLE}: the columns pathology are missing"),
        (replace(TABLE, "BENIGN_WITHOUT", "ODD"), "pathology 'ODD_CALLBACK' is none of MALIGNANT"),
        (
            remove("Mass-Test_P_00002_RIGHT_CC/*/*.dcm"),
            "1 films are missing, such as Mass-Test_P_00002_RIGHT_CC: fetch them",
        ),
        (
            remove("Mass-Training_P_00001_LEFT_CC_2/*/1-2.dcm"),
            "the mask of Mass-Training_P_00001_LEFT_CC_2 is missing",
        ),
        (
            lambda source: next(source.rglob("1-2.dcm")).write_bytes(b"nothing"),
            "1-2.dcm: is no DICOM file",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    spoil(source)
    with pytest.raises(UserError, match=complaint):
        convert_cbis_ddsm(source, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_id_with_two_files_is_told_by_its_series(source: Path, tmp_path: Path) -> None:
    subject = "Mass-Training_P_00001_LEFT_MLO"
    write_file(source / "CBIS-DDSM" / subject / "other" / "1-1.dcm", subject, film(60, 44), "1.9")
    with pytest.raises(UserError, match=f"{subject} has several DICOM files"):
        convert_cbis_ddsm(source, tmp_path / "data")
    write_file(source / "CBIS-DDSM" / subject / "other" / "1-1.dcm", subject, film(60, 44), "1.3")
    convert_cbis_ddsm(source, tmp_path / "data")
    made = tmp_path / "data" / "train_images" / "P_00001" / "P_00001_L_MLO.dcm"
    assert pydicom.dcmread(made).Columns == 44


def test_a_mask_that_marks_nothing_gives_no_box(source: Path, tmp_path: Path) -> None:
    subject = "Mass-Test_P_00002_RIGHT_CC_1"
    empty = np.zeros((60, 40), np.uint16)
    write_file(source / "CBIS-DDSM" / subject / "2016" / "1-2.dcm", subject, empty)
    convert_cbis_ddsm(source, tmp_path / "data")
    table = pd.read_csv(tmp_path / "data" / "lesions.csv")
    assert "P_00002_R_CC" not in set(table["image_id"])
