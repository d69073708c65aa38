"""mini-MIAS films become our layout: sides, labels and boxes land where they belong."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import LESIONS, TRAIN
from mammo.datasets.mini_mias import convert_mini_mias

LABELS = """Name,Background Tissue,Abnormality,Type,x,y,r
mdb001,G,CIRC,M,60,100,10
mdb001,G,CALC,B,20,30,5
mdb002,G,NORM,,,,
mdb005,F,CALC,B,,,
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three films of 128 x 128 pixels; the first has a bright disc where its label says."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    (folder / "labels.csv").write_text(LABELS)
    for name in ("mdb001", "mdb002", "mdb005"):
        film = np.full((128, 128), 30, np.uint8)
        if name == "mdb001":
            cv2.circle(film, (60, 128 - 100), 10, 200, -1)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), film)
    return folder


def test_two_films_are_one_woman_and_odd_is_left(source: Path, tmp_path: Path) -> None:
    convert_mini_mias(source, tmp_path / "data")
    table = read_table(tmp_path / "data" / "train.csv", TRAIN)
    assert table[["image_id", "patient_id", "laterality"]].values.tolist() == [
        ["mdb001", "1", "L"],
        ["mdb002", "1", "R"],
        ["mdb005", "3", "L"],
    ]
    assert table["cancer"].tolist() == [1, 0, 0]
    assert table["difficult_negative_case"].tolist() == [0, 0, 1]


def test_boxes_lie_around_the_lesions_seen_in_the_pixels(source: Path, tmp_path: Path) -> None:
    convert_mini_mias(source, tmp_path / "data")
    lesions = read_table(tmp_path / "data" / "lesions.csv", LESIONS)
    assert lesions["kind"].tolist() == ["circumscribed mass", "benign calcifications"]
    file = pydicom.dcmread(tmp_path / "data" / "train_images" / "1" / "mdb001.dcm")
    bright = np.argwhere(file.pixel_array > 100)
    box = lesions.iloc[0]
    assert [box.x1, box.y1] == [*(bright.min(axis=0)[::-1])]
    assert [box.x2, box.y2] == [*(bright.max(axis=0)[::-1])]


def test_pixels_and_header_survive(source: Path, tmp_path: Path) -> None:
    convert_mini_mias(source, tmp_path / "data")
    file = pydicom.dcmread(tmp_path / "data" / "train_images" / "1" / "mdb002.dcm")
    film = cv2.imread(str(source / "images" / "mdb002.png"), cv2.IMREAD_UNCHANGED)
    assert film is not None
    assert np.array_equal(file.pixel_array, film)
    assert (file.Modality, file.ImageLaterality, file.ViewPosition) == ("MG", "R", "MLO")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda source: (source / "labels.csv").unlink(), "labels.csv: there is no such file"),
        (lambda source: (source / "images" / "mdb002.png").unlink(), "mdb002.png: is missing"),
        (
            lambda source: (source / "labels.csv").write_text(LABELS.replace("NORM", "ODD")),
            "unknown abnormalities: ODD",
        ),
        (
            lambda source: (source / "labels.csv").write_text(LABELS.replace(",r\n", ",radius\n")),
            "the columns r are missing",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    source: Path, tmp_path: Path, spoil: object, complaint: str
) -> None:
    assert callable(spoil)
    spoil(source)
    with pytest.raises(UserError, match=complaint):
        convert_mini_mias(source, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_existing_folder_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pd.DataFrame().to_csv(tmp_path / "data" / "precious.csv")
    with pytest.raises(UserError, match="exists already"):
        convert_mini_mias(source, tmp_path / "data")
    assert (tmp_path / "data" / "precious.csv").exists()
