"""Crops by class become a table and pictures: each woman in one split, each class where it was."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.datasets.cbis_masses import convert_cbis_masses
from mammo.patches.tables import CROPS, crop_file, read_source

CROPPED = {
    "train/benign/P_00001_image11_mass3_is_benign_1": 30,
    "train/malignant/P_00001_image12_mass4_is_benign_0": 60,
    "val/benign/P_00007_image5_mass9_is_benign_1": 90,
}


def write_crop(path: Path, grey: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 16), grey, np.uint8))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, grey in CROPPED.items():
        folder, file = name.rsplit("/", 1)
        write_crop(tmp_path / "source" / folder / f"patientcbis-ddsm__{file}.png", grey)
    return tmp_path / "source"


def test_each_crop_keeps_its_woman_its_class_and_its_split(source: Path, tmp_path: Path) -> None:
    convert_cbis_masses(source, tmp_path / "data")
    table = read_table(tmp_path / "data" / "crops.csv", CROPS)
    assert table.values.tolist() == [
        ["P_00001", "P_00001_11_3", 0, "train"],
        ["P_00001", "P_00001_12_4", 1, "train"],
        ["P_00007", "P_00007_5_9", 0, "validation"],
    ]
    pictures = [tmp_path / "data" / crop_file(row[0], row[1]) for row in table.values]
    greys = [int(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[0, 0]) for path in pictures]  # type: ignore[index]
    assert greys == list(CROPPED.values())
    assert read_source(tmp_path / "data")["licence"] == "CC BY 3.0"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda s: (s / "val").rename(s / "other"), "val: there is no such folder"),
        (lambda s: write_crop(s / "train/benign/mass.png"), "mass.png: is not named like"),
        (
            lambda s: write_crop(
                s / "train/malignant/patientcbis-ddsm__P_00002_image1_mass1_is_benign_1.png"
            ),
            "its name and its folder say different things",
        ),
        (
            lambda s: write_crop(
                s / "val/malignant/patientcbis-ddsm__P_00001_image9_mass9_is_benign_0.png"
            ),
            "the patient P_00001 is in more than one",
        ),
        (
            lambda s: write_crop(
                s / "test/benign/patientcbis-ddsm__P_00007_image5_mass9_is_benign_1.png"
            ),
            "P_00007_5_9 is there more than once",
        ),
        (
            lambda s: next(s.glob("val/*/*.png")).write_bytes(b"no picture"),
            "is not an 8-bit grey PNG",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    spoil(source)
    with pytest.raises(UserError, match=complaint):
        convert_cbis_masses(source, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_existing_folder_is_left_alone(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        convert_cbis_masses(source, source)
    assert (source / "train").is_dir()
