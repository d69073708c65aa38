"""The sample that a bare clone makes is the one that data.dvc names.

To draw all of it takes two minutes of processor time; so each eleventh woman is drawn, and held
against what the whole sample was when data.dvc was written. That is kept in tests/sample, under
the very hash of data.dvc: DVC's list of the files' hashes, and the three tables.

For a new sample: `mammoflow data phantom data` and `dvc add data`, then copy the tables, and for
data.json the file of .dvc/cache/files/md5 that data.dvc's hash names.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mammo.base.atomic_files import write_csv
from mammo.datasets.phantom.draw import LONG_SIDE, SEED, WOMEN
from mammo.datasets.phantom.draw import _train_table as train_table
from mammo.datasets.phantom.draw import _write_woman as write_woman
from mammo.datasets.phantom.plan import plan_women
from tests.imports import ROOT

KEPT = ROOT / "tests" / "sample"
BOXES = ("breast_boxes.csv", "lesions.csv")
SIDES = ("x1", "y1", "x2", "y2")


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """The files of the whole sample, and their hashes."""
    [out] = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]
    assert md5_of(KEPT / "data.json") == out["md5"].removesuffix(".dir")
    return {
        entry["relpath"]: entry["md5"] for entry in json.loads((KEPT / "data.json").read_text())
    }


def test_what_is_kept_is_what_data_dvc_names(listed: dict[str, str]) -> None:
    for name in ("train.csv", *BOXES):
        assert md5_of(KEPT / name) == listed[name]
    assert len([name for name in listed if name.endswith(".dcm")]) == 4 * WOMEN


def test_its_table_is_made_as_it_was(listed: dict[str, str], tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", train_table(plan_women(WOMEN, SEED)))
    assert md5_of(tmp_path / "train.csv") == listed["train.csv"]


def test_which_images_have_a_box_is_as_it_was() -> None:
    images = [
        image_id
        for woman in plan_women(WOMEN, SEED)
        for breast in woman.breasts
        for image_id in breast.image_ids
    ]
    assert list(pd.read_csv(KEPT / BOXES[0], dtype=str)["image_id"]) == images[::3]


def test_each_eleventh_woman_is_drawn_as_she_was(listed: dict[str, str], tmp_path: Path) -> None:
    everybody = plan_women(WOMEN, SEED)
    first_of_each = {woman.machine.syntax: woman for woman in reversed(everybody)}
    women = {woman.patient_id: woman for woman in (*everybody[::11], *first_of_each.values())}
    images = [row for woman in women.values() for row in write_woman(tmp_path, LONG_SIDE, woman)]
    files = list(tmp_path.rglob("*.dcm"))
    drawn = {path.relative_to(tmp_path).as_posix(): md5_of(path) for path in files}
    assert len(drawn) == 4 * len(women)
    assert drawn == {name: listed[name] for name in drawn}
    boxes, lesions = (pd.read_csv(KEPT / name, dtype={"image_id": str}) for name in BOXES)
    for image_id, breast, found in images:
        for box in boxes.loc[boxes["image_id"] == image_id, list(SIDES)].to_numpy():
            assert list(box) == [int(getattr(breast, side)) for side in SIDES]
        rows = lesions.loc[lesions["image_id"] == image_id, [*SIDES, "kind"]].to_numpy().tolist()
        assert rows == [[*(int(getattr(box, side)) for side in SIDES), kind] for kind, box in found]
    assert any(found for _, _, found in images)
