"""The plan: what it refuses to say, what the looks spend, and which settings may change."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.assurance.plan import AllowedChanges, Looks, load_plan, name_outside
from mammo.assurance.promotion_rule import (
    UNREAD,
    add_reasons,
    check_unread,
    count_unread,
    decide,
    hold_against,
)
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.judged import plan, policy, women
from tests.support.spoil import Change, spoil


def spoiled(tmp_path: Path, change: Change) -> Path:
    return spoil(ROOT / "plan.yaml", tmp_path / "plan.yaml", change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.pop("looks"), "looks is missing"),
        (lambda c: c["policy"].update(confidence=0.9), "policy.confidence is not a known setting"),
        (lambda c: c["policy"].update(approve="maybe"), "policy.approve = 'maybe'"),
        (lambda c: c["policy"]["auroc"].update(test="equality"), "policy.auroc.test = 'equality'"),
        (lambda c: c["policy"]["subgroups"].update(by=["site"]), "policy.subgroups.by.0 = 'site'"),
        (lambda c: c["looks"].update(error=1.0), "looks.error = 1.0"),
        (lambda c: c["looks"].update(number=500), "takes 10000 resamples, or fewer looks"),
        (lambda c: c["looks"].update(error=0.001), "policy.bootstrap = 2000 is too small"),
        (lambda c: c["reference"].update(auroc=0.01), "reference.auroc = 0.01 is smaller than"),
        (lambda c: c["reference"].update(version="last"), "reference.version"),
        (lambda c: c["changes"].update(params={"seed": {"low": 3, "high": 1}}), "run from low to"),
        (lambda c: c["changes"].update(params={"seed": "some"}), "changes.params"),
    ],
)
def test_a_slip_in_a_plan_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    with pytest.raises(UserError) as told:
        load_plan(spoiled(tmp_path, change))
    assert "plan.yaml: " in str(told.value)
    assert complaint in str(told.value)


@given(st.integers(1, 60), st.floats(0.001, 0.9), st.sampled_from(["equal", "falling"]))
def test_all_looks_together_spend_the_error_and_none_spends_more_than_one_before(
    number: int, error: float, spend: Any
) -> None:
    looks = Looks(number=number, error=error, spend=spend, renew=0.5)
    shares = [looks.error_of(look) for look in range(1, number + 1)]
    assert sum(shares) == pytest.approx(error)
    assert shares == sorted(shares, reverse=True)


BEFORE = {"seed": 20, "classifier.learning_rate": 0.0004, "tune.trials": 2, "crop.margin": 0.02}


@pytest.mark.parametrize(
    ("permitted", "change", "outside"),
    [
        ({}, {}, []),
        ({}, {"seed": 21}, ["seed = 21 was 20"]),
        ({"seed": "any"}, {"seed": 21}, []),
        ({"tune": "any"}, {"tune.trials": 9, "tune.epochs": 1}, []),
        ({"tune": "any", "tune.trials": {"low": 1, "high": 3}}, {"tune.trials": 9},
         ["tune.trials = 9 is not 1 to 3"]),
        ({"classifier.learning_rate": {"low": 0.0001, "high": 0.001}},
         {"classifier.learning_rate": 0.001}, []),
        ({"classifier.learning_rate": {"low": 0.0001, "high": 0.001}},
         {"classifier.learning_rate": 0.01},
         ["classifier.learning_rate = 0.01 is not 0.0001 to 0.001"]),
        ({"seed": {"values": [20, 21]}}, {"seed": 22}, ["seed = 22 is not one of 20, 21"]),
        ({"tun": "any"}, {"tune.trials": 9}, ["tune.trials = 9 was 2"]),
    ],
)  # fmt: skip
def test_what_the_plan_does_not_name_must_stay(
    permitted: dict[str, Any], change: dict[str, object], outside: list[str]
) -> None:
    rules = AllowedChanges.model_validate(
        {"params": permitted, "data": "all", "code": "all"}
    ).params
    assert isinstance(rules, dict)
    assert name_outside(rules, BEFORE, {**BEFORE, **change}) == outside


def test_without_a_reference_only_ranges_and_choices_count() -> None:
    rules = AllowedChanges.model_validate(
        {"params": {"seed": {"values": [20]}}, "data": "all", "code": "all"}
    ).params
    assert isinstance(rules, dict)
    assert name_outside(rules, None, {"seed": 21, "threads": 2}) == ["seed = 21 is not one of 20"]


def breasts_of(images: pd.DataFrame, probability: "pd.Series[float]") -> pd.DataFrame:
    kept = images.assign(probability=probability)
    return kept[kept["probability"].notna()].reset_index(drop=True)


@pytest.mark.parametrize("count", ["lowest", "leave_out"])
def test_one_model_on_both_sides_is_equal_whoever_rejects_the_hardest_cancers(count: Any) -> None:
    """As it was, what the challenger rejected was left out, and the champion's counted as 0."""
    table = women(120, seed=5)
    probability = table["probability"]
    hardest = table[table["target"] == 1].nsmallest(8, "probability").index
    blind = probability.mask(table.index.isin(hardest))
    for champion, challenger in ((probability, blind), (blind, probability), (blind, blind)):
        one, other = (breasts_of(table, x) for x in count_unread(champion, challenger, count))
        decision = decide(one, other, policy(), 0.95)
        assert decision.promote
        assert all(reason.champion == reason.challenger for reason in decision.reasons)
        assert decision.breasts == (240 if count == "lowest" else 232)
    # But that it reads fewer is a condition of its own.
    found = check_unread(champion=0, challenger=8, images=240, more=0.02)
    assert (found.check, found.passed) == (UNREAD, False)
    assert "unread images 8 against 0, of 240" in found.sentence
    assert not add_reasons(decision, [found]).promote
    assert check_unread(champion=8, challenger=8, images=240, more=0.0).passed


def test_a_challenger_is_held_against_the_reference_with_the_plans_own_margins() -> None:
    best, worse = women(300, 1, shift=4.0), women(300, 2, shift=1.0)
    assert decide(worse, worse, policy(), 0.95).promote
    tight = plan().reference.model_copy(update={"auroc": 0.05, "average_precision": 0.05})
    found = hold_against(best, worse, tight, 1, policy(), 0.95)
    assert [(r.check, r.against, r.passed) for r in found] == [
        ("average_precision", 1, False),
        ("auroc", 1, False),
    ]
    assert found[1].name == "auroc, against version 1"
    assert found[1].sentence.startswith("against the reference, version 1: auROC ")
    assert all(r.passed for r in hold_against(best, best, tight, 1, policy(), 0.95))


def test_a_challenger_that_refuses_to_read_the_hardest_cancers_is_refused() -> None:
    """1,000 women, 30 of them with cancer: 15 unread images are a small share of all."""
    assert check_unread(0, 15, 2000, 0.02).passed
    found = check_unread(0, 15, 30, 0.02, positive=True)
    assert (found.check, found.passed) == ("unread_positives", False)
    assert found.sentence == (
        "unread images of positive breasts 15 against 0, of 30: that is +0.5000 of them, and at "
        "most 0.0200 is allowed"
    )


def test_sets_share_the_error_and_a_plan_without_them_gives_each_the_whole() -> None:
    before = Looks(number=5, error=0.25, spend="equal", renew=0.5)
    two = before.model_copy(update={"sets": 2})
    assert (before.error_of_set, two.error_of_set) == (0.25, 0.125)
    assert two.error_of(1) == pytest.approx(before.error_of(1) / 2)
