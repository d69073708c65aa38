"""Patches show what lesions.csv marks, and healthy tissue of the same women."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mammo.base.errors import UserError
from mammo.base.settings import Split
from mammo.data.splits import split_of
from mammo.datasets.dicom_writer import MammogramFacts, TransferSyntax, encode_mammogram
from mammo.imaging.geometry import Box
from mammo.patches.cut import Patch, cut, gather_patches
from mammo.patches.settings import Patches
from mammo.patches.tables import HEALTHY, crop_file
from tests.support.small_sets import COLUMNS

SERVED = Split(validation=0.3, test=0.3, salt="served")
WOMEN = [f"w{number}" for number in range(8)]
LESION = Box(60, 90, 76, 106)  # in a film of 160 x 200 pixels whose breast is at the left
ODD = "w1"  # her film's cancer has no position


def settings(**changes: object) -> Patches:
    return Patches.model_validate(
        {
            "source": "x",
            "same_women": False,
            "kinds": ["mass"],
            "long_side": 200,
            "size": 24,
            "context": 1.0,
            "split": {"validation": 0.4, "test": 0.0, "salt": "own"},
        }
        | changes
    )


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Women with two films each, a bright square in the first where lesions.csv says."""
    folder = tmp_path_factory.mktemp("collection")
    rows, lesions = [], []
    for number, woman in enumerate(WOMEN):
        for view in ("CC", "MLO"):
            film = np.zeros((200, 160), np.uint16)
            cv2.ellipse(film, (0, 100), (130, 90), 0, -90, 90, 90, -1)
            cancer = 0
            if view == "CC":
                film[int(LESION.y1) : int(LESION.y2), int(LESION.x1) : int(LESION.x2)] = 255
                cancer = number % 2
                kind = "mass" if cancer else "benign mass"
                box = {"x1": LESION.x1, "y1": LESION.y1, "x2": LESION.x2, "y2": LESION.y2}
                lesions.append({"image_id": f"{woman}CC", **box, "kind": kind})
            elif woman == ODD:
                cancer = 1
            image = f"{woman}{view}"
            about = MammogramFacts(woman, image, "L", view, ("A", "R"), bits_stored=8)
            path = folder / "train_images" / woman / f"{image}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_mammogram(film, about, TransferSyntax.UNCOMPRESSED))
            rows.append(
                dict.fromkeys(COLUMNS, "0")
                | {"patient_id": woman, "image_id": image, "laterality": "L", "view": view}
                | {"age": "", "density": "", "cancer": cancer}
            )
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    pd.DataFrame(lesions).to_csv(folder / "lesions.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def patches(collection: Path) -> list[Patch]:
    return list(gather_patches(collection, settings(), SERVED, seed=3))


def test_a_lesions_patch_shows_the_lesion_and_has_its_class(patches: list[Patch]) -> None:
    lesions = [patch for patch in patches if patch.kind != HEALTHY]
    assert [patch.patient_id for patch in lesions] == WOMEN
    assert [patch.cancer for patch in lesions] == [0, 1] * 4
    assert {patch.pixels.shape for patch in lesions} == {(24, 24)}
    assert min(patch.pixels.min() for patch in lesions) > 200


def test_each_lesion_comes_with_healthy_tissue_of_the_same_woman(patches: list[Patch]) -> None:
    healthy = [patch for patch in patches if patch.kind == HEALTHY]
    assert [patch.patient_id for patch in healthy] == WOMEN
    assert [patch.cancer for patch in healthy] == [0] * len(WOMEN)
    for patch in healthy:
        assert patch.pixels.max() < 200, "it touches the lesion"
        assert (patch.pixels > 20).mean() > 0.85, "it is not of the breast"


def test_a_film_with_a_cancer_whose_place_is_not_known_is_not_healthy(
    collection: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(collection / "train.csv", dtype=str, keep_default_na=False)
    rows.loc[rows["image_id"] == f"{ODD}MLO", "patient_id"] = "other"
    rows.loc[rows["image_id"] == f"{ODD}CC", "patient_id"] = "other"
    # Both films of a woman, of which one has a lesion of unknown position only.
    lesions = pd.read_csv(collection / "lesions.csv")
    lesions.loc[lesions["image_id"] == f"{ODD}CC", ["x1", "y1", "x2", "y2"]] = [1, 1, 159, 199]
    rows.to_csv(tmp_path / "train.csv", index=False)
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    for image in ("CC", "MLO"):
        target = tmp_path / "train_images" / "other" / f"{ODD}{image}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((collection / "train_images" / ODD / f"{ODD}{image}.dcm").read_bytes())
    (tmp_path / "train_images" / "w0").symlink_to(collection / "train_images" / "w0")
    for woman in WOMEN[2:]:
        (tmp_path / "train_images" / woman).symlink_to(collection / "train_images" / woman)
    found = list(gather_patches(tmp_path, settings(), SERVED, seed=3))
    assert [patch.kind for patch in found if patch.patient_id == "other"] == ["mass"]


def test_no_patch_is_of_a_woman_whom_the_served_collection_tests(collection: Path) -> None:
    found = list(gather_patches(collection, settings(same_women=True), SERVED, seed=3))
    women = {patch.patient_id for patch in found}
    assert women == {woman for woman in WOMEN if split_of(woman, SERVED) == "train"}
    assert women < set(WOMEN)


def test_other_women_do_not_change_a_womans_patches(collection: Path, patches: list[Patch]) -> None:
    fewer = list(gather_patches(collection, settings(same_women=True), SERVED, seed=3))
    same = {patch.image_id: patch for patch in patches}
    for patch in fewer:
        assert np.array_equal(patch.pixels, same[patch.image_id].pixels)


def test_a_woman_is_in_one_split(patches: list[Patch]) -> None:
    own = settings().split
    assert {(patch.patient_id, patch.split) for patch in patches} == {
        (woman, split_of(woman, own)) for woman in WOMEN
    }


def test_a_film_that_cannot_be_read_is_told_and_left_out(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.csv", "lesions.csv"):
        (tmp_path / name).write_bytes((collection / name).read_bytes())
    for woman in WOMEN[1:]:
        path = tmp_path / "train_images" / woman
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(collection / "train_images" / woman)
    found = list(gather_patches(tmp_path, settings(), SERVED, seed=3))
    assert {patch.patient_id for patch in found} == set(WOMEN[1:])
    assert "left out: " in capsys.readouterr().out


def test_what_lies_outside_of_the_film_is_black() -> None:
    image = np.full((40, 30), 200, np.uint8)
    patch = cut(image, Box(-10, 30, 10, 50), 20)
    assert np.array_equal(np.argwhere(patch == 200).min(axis=0), [0, 10])
    assert np.array_equal(np.argwhere(patch == 200).max(axis=0), [9, 19])
    assert (patch[:, :10] == 0).all()


def write_crops(folder: Path, rows: list[tuple[str, str, int, str]]) -> Path:
    table = pd.DataFrame(rows, columns=["patient_id", "image_id", "cancer", "split"])
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "crops.csv", index=False)
    for patient, image, cancer, _ in rows:
        path = folder / crop_file(patient, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8), 40 + cancer, np.uint8))
    return folder


def test_crops_keep_their_split_and_test_women_are_left_out(tmp_path: Path) -> None:
    rows = [(woman, f"{woman}-1", number % 2, "train") for number, woman in enumerate(WOMEN)]
    folder = write_crops(tmp_path, [*rows[:4], *((*row[:3], "validation") for row in rows[4:])])
    found = list(gather_patches(folder, settings(), SERVED, seed=0))
    assert [(p.patient_id, p.cancer, p.split) for p in found] == [
        (woman, number % 2, "train" if number < 4 else "validation")
        for number, woman in enumerate(WOMEN)
    ]
    kept = list(gather_patches(folder, settings(same_women=True), SERVED, seed=0))
    assert {p.patient_id for p in kept} == {w for w in WOMEN if split_of(w, SERVED) == "train"}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([("a", "1", 0, "train"), ("a", "2", 1, "validation")], "a is in 2 splits"),
        ([("a", "1", 2, "train")], "cancer: 2 must be 0 or 1"),
        ([("a", "1", 0, "training")], "split: .training. must be one of"),
    ],
)
def test_crops_that_contradict_themselves_are_refused(
    tmp_path: Path, rows: list[tuple[str, str, int, str]], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        list(gather_patches(write_crops(tmp_path, rows), settings(), SERVED, seed=0))


def test_a_crop_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_crops(tmp_path, [("a", "1", 0, "train")])
    (folder / crop_file("a", "1")).unlink()
    with pytest.raises(UserError, match=r"1\.png: is missing, but .*crops\.csv names it"):
        list(gather_patches(folder, settings(), SERVED, seed=0))


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has neither crops\.csv .* nor train\.csv"):
        list(gather_patches(tmp_path, settings(), SERVED, seed=0))
