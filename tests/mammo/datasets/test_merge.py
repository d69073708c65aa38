"""Two data sets become one, or it is said what keeps them apart."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import LESIONS, TRAIN
from mammo.datasets.merge import merge
from tests.support.contents import contents
from tests.support.small_sets import COLUMNS, write_set


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_set(tmp_path / "old", {"1/11": b"one", "2/21": b"two"})


def test_the_merged_set_has_all_files_and_rows_and_neither_part_changes(
    old: Path, tmp_path: Path
) -> None:
    new = write_set(tmp_path / "new", {"1/12": b"three", "3/0031": b"four"}, age="61.5")
    before = contents(old), contents(new)
    assert merge(old, new, tmp_path / "both") == 2
    assert (contents(old), contents(new)) == before
    table = read_table(tmp_path / "both" / "train.csv", TRAIN)
    assert list(table["image_id"]) == ["11", "21", "12", "0031"]
    assert (tmp_path / "both/train.csv").read_text().startswith((old / "train.csv").read_text())
    for row in table.itertuples():
        path = f"train_images/{row.patient_id}/{row.image_id}.dcm"
        source = old if (old / path).exists() else new
        assert (tmp_path / "both" / path).read_bytes() == (source / path).read_bytes()


def test_a_later_change_of_the_merged_set_does_not_reach_the_old_one(
    old: Path, tmp_path: Path
) -> None:
    before = contents(old)
    merge(old, write_set(tmp_path / "new", {"3/31": b"x"}), tmp_path / "both")
    shutil.rmtree(tmp_path / "both")
    assert contents(old) == before


def test_columns_are_matched_by_name(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x"}, machine_id="170")
    table = pd.read_csv(new / "train.csv", dtype=str, keep_default_na=False)
    table[COLUMNS[::-1]].to_csv(new / "train.csv", index=False)
    merge(old, new, tmp_path / "both")
    merged = read_table(tmp_path / "both" / "train.csv", TRAIN)
    assert list(merged.columns) == COLUMNS
    assert list(merged["machine_id"]) == ["0", "0", "170"]


def test_lesions_come_along(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x"})
    (new / "lesions.csv").write_text("image_id,x1,y1,x2,y2,kind\n31,1,2,3,4,mass\n")
    merge(old, new, tmp_path / "both")
    assert list(read_table(tmp_path / "both" / "lesions.csv", LESIONS)["image_id"]) == ["31"]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ({"9/11": b"x"}, r"train\.csv: image_id is in the data already: 11"),
        ({"3/31": b"two"}, r"3/31\.dcm: the same bytes as .*2/21\.dcm"),
        ({"3/31": b"x", "3/32": b"x"}, r"3/32\.dcm: the same bytes as .*3/31\.dcm"),
        ({}, r"train\.csv: "),
    ],
)
def test_duplicates_and_nothing_are_refused(
    old: Path, tmp_path: Path, images: dict[str, bytes], sentence: str
) -> None:
    (tmp_path / "new").mkdir()
    new = write_set(tmp_path / "new", images)
    with pytest.raises(UserError, match=sentence):
        merge(old, new, tmp_path / "both")


def test_the_schema_is_that_of_the_data(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x"}, cancer="2")
    with pytest.raises(UserError, match=r"new/train\.csv: line 2, cancer: 2 must be 0 or 1"):
        merge(old, new, tmp_path / "both")


def test_a_row_needs_its_file_and_a_file_its_row(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x", "3/32": b"y"})
    moved = new / "train_images/3/32.dcm"
    moved.rename(new / "train_images/3/33.dcm")
    with pytest.raises(UserError) as caught:
        merge(old, new, tmp_path / "both")
    missing, extra = str(caught.value).splitlines()
    assert missing.endswith(f"there is no such file in {new}: train_images/3/32.dcm")
    assert extra.endswith(f"file without a row in {new / 'train.csv'}: train_images/3/33.dcm")


def test_boxes_of_other_images_are_refused(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x"})
    (new / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n11,1,2,3,4\n")
    with pytest.raises(UserError, match=r"breast_boxes\.csv: image_id is not in .*train\.csv: 11"):
        merge(old, new, tmp_path / "both")


def test_every_fault_is_named_at_once(old: Path, tmp_path: Path) -> None:
    new = write_set(tmp_path / "new", {"3/11": b"x", "3/31": b"two", "3/32": b"z", "3/34": b"t"})
    (new / "train_images/3/32.dcm").unlink()
    (new / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n70,1,2,3,4\n31,5,0,1,1\n")
    table = pd.read_csv(new / "train.csv", dtype=str, keep_default_na=False)
    table.loc[3, "cancer"] = "maybe"
    table.drop(columns="density").to_csv(new / "train.csv", index=False)
    with pytest.raises(UserError) as caught:
        merge(old, new, tmp_path / "both")
    said = str(caught.value).splitlines()
    assert [line.replace(str(tmp_path), "") for line in said] == [
        "/new/train.csv: the column density is missing",
        "/new/train.csv: line 5, cancer: 'maybe' must be 0 or 1",
        "/new/breast_boxes.csv: line 3, x1 must be less than x2",
        "/new/breast_boxes.csv: image_id is not in /new/train.csv: 70",
        "/new/train.csv: image_id is in the data already: 11",
        "/new/train.csv: there is no such file in /new: train_images/3/32.dcm",
        "/new/train_images/3/31.dcm: the same bytes as /old/train_images/2/21.dcm",
    ]
    assert not (tmp_path / "both").exists()


def test_links_that_lead_nowhere_are_named_and_hidden_files_stay_behind(
    old: Path, tmp_path: Path
) -> None:
    new = write_set(tmp_path / "new", {"3/31": b"x", "3/32": b"y"})
    (new / "train_images/.DS_Store").write_bytes(b"1")
    (old / "train_images/1/99.dcm").symlink_to(tmp_path / "nowhere")
    merge(old, new, tmp_path / "both")
    assert not (tmp_path / "both/train_images/.DS_Store").exists()
    (new / "train_images/3/32.dcm").unlink()
    (new / "train_images/3/32.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        merge(old, new, tmp_path / "again")
    said = str(caught.value)
    assert said == f"{new}: symbolic link that leads nowhere: train_images/3/32.dcm"
