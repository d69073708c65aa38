"""Sound splits pass, whatever their shape; each way of being unsound is named."""

from collections.abc import Callable
from typing import Literal, TypedDict

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.assurance.leakage import find_leaks, find_pretraining_leaks


class Tables(TypedDict):
    """What `find_leaks` is given."""

    labels: pd.DataFrame
    manifest: pd.DataFrame
    rejects: pd.DataFrame
    split: pd.DataFrame
    pictures: dict[str, str]


def tables(women: dict[str, str], views: int = 2) -> Tables:
    """Sound tables of so many women, by split, with different pictures."""
    images = [(woman, f"{woman}{view}") for woman in women for view in range(views)]
    labels = pd.DataFrame(images, columns=["patient_id", "image_id"], dtype=str)
    manifest = labels.assign(path=[f"{woman}/{image}.png" for woman, image in images])
    return {
        "labels": labels,
        "manifest": manifest,
        "rejects": pd.DataFrame({"image_id": []}, dtype=str),
        "split": pd.DataFrame(list(women.items()), columns=["patient_id", "split"], dtype=str),
        "pictures": {path: f"hash of {path}" for path in manifest["path"]},
    }


WOMEN = {"anna": "train", "berta": "train", "clara": "validation", "dora": "test"}


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1), st.sampled_from(["train", "validation", "test"]), min_size=1
    )
)
def test_women_in_one_split_each_are_sound(women: dict[str, str]) -> None:
    assert find_leaks(**tables(women)) == []


def test_the_same_picture_twice_in_one_split_is_no_leak() -> None:
    content = tables(WOMEN)
    content["pictures"]["berta/berta0.png"] = "hash of anna/anna0.png"
    assert find_leaks(**content) == []


def test_a_woman_in_two_splits_is_named() -> None:
    content = tables(WOMEN)
    extra = pd.DataFrame({"patient_id": ["anna"], "split": ["test"]})
    content["split"] = pd.concat([content["split"], extra])
    assert "1 woman (anna) in more than one split" in find_leaks(**content)


def test_one_picture_in_two_splits_is_named() -> None:
    content = tables(WOMEN)
    content["pictures"]["dora/dora1.png"] = "hash of anna/anna0.png"
    assert find_leaks(**content) == [
        "1 picture (anna0 (train) = dora1 (test)) in more than one split, pixel for pixel"
    ]


@pytest.mark.parametrize(
    ("table", "keep", "sentence"),
    [
        ("manifest", lambda t: t["image_id"] != "dora1", "1 image (dora1) of train.csv neither"),
        ("labels", lambda t: t["image_id"] != "dora1", "1 image (dora1) used or rejected, but"),
        ("split", lambda t: t["patient_id"] != "dora", "1 woman (dora) in no split"),
        ("manifest", lambda t: t["patient_id"] != "dora", "1 woman (dora) in a split, but without"),
    ],
)
def test_sets_that_do_not_add_up_are_named(
    table: Literal["labels", "manifest", "split"],
    keep: Callable[[pd.DataFrame], "pd.Series[bool]"],
    sentence: str,
) -> None:
    content = tables(WOMEN)
    whole = content[table]
    content[table] = whole[keep(whole)]
    assert any(sentence in leak for leak in find_leaks(**content))


def test_a_rejected_image_adds_up() -> None:
    content = tables(WOMEN)
    manifest = content["manifest"]
    assert isinstance(manifest, pd.DataFrame)
    content["manifest"] = manifest[manifest["image_id"] != "dora1"]
    content["rejects"] = pd.DataFrame({"image_id": ["dora1"]})
    assert find_leaks(**content) == []


def test_an_image_that_was_given_to_another_woman_is_named() -> None:
    content = tables(WOMEN)
    manifest = content["manifest"]
    assert isinstance(manifest, pd.DataFrame)
    manifest.loc[manifest["image_id"] == "anna0", "patient_id"] = "berta"
    assert "1 image (anna0) of another woman than in train.csv" in find_leaks(**content)


def test_patches_of_women_who_judge_the_model_are_a_leak() -> None:
    split = tables(WOMEN)["split"]
    patches = pd.DataFrame({"patient_id": ["anna", "anna", "dora", "clara", "somebody else"]})
    assert find_pretraining_leaks(patches, split) == [
        "2 women (clara, dora) in validation or test, and in the patches that the first weights"
        " learnt from"
    ]
    assert find_pretraining_leaks(patches[:2], split) == []
