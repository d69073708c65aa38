"""A woman's split depends on her id alone, and every split can be learnt from."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.base.errors import UserError
from mammo.base.settings import Split
from mammo.data.splits import SPLITS, assign, check, count, hash_to_unit_interval, target_of

SETTINGS = Split(validation=0.2, test=0.3, salt="salt")
women = st.lists(st.text("0123456789abc", min_size=1, max_size=8), max_size=50)


def as_dict(split: pd.DataFrame) -> dict[str, str]:
    return dict(zip(split["patient_id"], split["split"], strict=True))


@given(women, women)
def test_women_stay_where_they_are_when_others_come(old: list[str], new: list[str]) -> None:
    before = as_dict(assign(old, SETTINGS))
    after = as_dict(assign([*new, *old], SETTINGS))
    assert before.items() <= after.items()


@given(women, st.randoms(use_true_random=False))
def test_row_order_and_repetition_do_not_matter(ids: list[str], random: object) -> None:
    shuffled = [*ids, *ids]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(assign(ids, SETTINGS), assign(shuffled, SETTINGS))


@given(women)
def test_every_woman_is_in_one_split(ids: list[str]) -> None:
    split = assign(ids, SETTINGS)
    assert list(split["patient_id"]) == sorted(set(ids))
    assert set(split["split"]) <= set(SPLITS)


@given(st.text(), st.text())
def test_a_place_is_in_the_half_open_unit_interval(patient: str, salt: str) -> None:
    assert 0 <= hash_to_unit_interval(patient, salt) < 1


@given(
    women,
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.floats(0, 0.1),
)
def test_a_larger_test_share_only_adds_to_the_test_women(
    ids: list[str], validation: float, test: float, more: float
) -> None:
    small = Split(validation=validation, test=test, salt="s")
    large = Split(validation=validation, test=test + more, salt="s")
    before, after = as_dict(assign(ids, small)), as_dict(assign(ids, large))
    assert all(after[woman] == "test" for woman, where in before.items() if where == "test")


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.3), (0.1, 0.1), (0.5, 0.25)])
def test_shares_approach_the_fractions(validation: float, test: float) -> None:
    settings = Split(validation=validation, test=test, salt="another")
    share = assign(map(str, range(20_000)), settings)["split"].value_counts(normalize=True)
    # Three standard deviations of a binomial share of 20,000.
    assert share["validation"] == pytest.approx(validation, abs=0.0107)
    assert share["test"] == pytest.approx(test, abs=0.0107)


def test_another_salt_is_another_division() -> None:
    ids = [str(number) for number in range(100)]
    other = SETTINGS.model_copy(update={"salt": "pepper"})
    assert as_dict(assign(ids, SETTINGS)) != as_dict(assign(ids, other))


def test_the_place_is_the_same_for_ever() -> None:
    """Another hash moves women between splits under existing models."""
    assert hash_to_unit_interval("10599", "mammoflow") == pytest.approx(
        0.2791623812089803, abs=1e-15
    )


def manifest(rows: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    columns = ["patient_id", "laterality", "cancer", "biopsy"]
    return pd.DataFrame(rows, columns=columns)


ROWS = [
    ("a", "L", 0, 1),
    ("a", "L", 1, 0),
    ("a", "R", 0, 0),
    ("b", "L", 0, 0),
    ("b", "R", 0, 1),
    ("c", "R", 0, 0),
]


def test_target_is_any_of_the_columns() -> None:
    table = manifest(ROWS)
    assert list(target_of(table, ["cancer"])) == [0, 1, 0, 0, 0, 0]
    assert list(target_of(table, ["cancer", "biopsy"])) == [1, 1, 0, 0, 1, 0]


def test_women_breasts_and_images_are_counted() -> None:
    split = pd.DataFrame({"patient_id": list("abc"), "split": ["train", "train", "test"]})
    counts = count(manifest(ROWS), split, ["cancer", "biopsy"]).to_dict("index")
    assert counts["train"] == {
        "women": 2,
        "positive_women": 2,
        "breasts": 4,
        "positive_breasts": 2,
        "images": 5,
        "positive_images": 3,
    }
    assert counts["test"]["breasts"] == 1
    assert counts["test"]["positive_breasts"] == 0
    assert set(counts["validation"].values()) == {0}


def counts_of(splits: list[str], rows: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    split = pd.DataFrame({"patient_id": list("abc"), "split": splits})
    return count(manifest(rows), split, ["cancer"])


def test_a_fair_division_passes() -> None:
    rows = [(w, side, int(side == "L"), 0) for w in "abc" for side in "LR"]
    check(counts_of(list(SPLITS), rows), ["cancer"], Path("manifest.csv"))


@pytest.mark.parametrize(
    ("splits", "labels", "fault"),
    [
        (["train", "test", "test"], {"L": 1, "R": 0}, "validation split holds no women"),
        (
            ["train", "validation", "test"],
            {"L": 0, "R": 0},
            "train split has no breast with cancer",
        ),
        (["train", "validation", "test"], {"L": 1, "R": 1}, "has no breast without cancer"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused(
    splits: list[str], labels: dict[str, int], fault: str
) -> None:
    rows = [(woman, side, label, 0) for woman in "abc" for side, label in labels.items()]
    with pytest.raises(UserError, match=fault) as error:
        check(counts_of(splits, rows), ["cancer"], Path("folder/manifest.csv"))
    assert "folder/manifest.csv" in str(error.value)
    assert "params.yaml" in str(error.value)
