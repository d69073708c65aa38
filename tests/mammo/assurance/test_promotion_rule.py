"""The promotion gate: what no challenger may do, and what every one may."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from mammo.assurance.paired import compute_areas, find_tail
from mammo.assurance.promotion_rule import Decision, Reason, add_groups, decide
from mammo.evaluation.metrics import measure
from tests.support.judged import policy, women

CONFIDENCE = 0.95
CASES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=60
).filter(lambda rows: {target for target, _, weight in rows if weight} == {0, 1})


def reason(decision: Decision, check: str, group: str | None = None) -> Reason:
    (found,) = [r for r in decision.reasons if (r.check, r.group) == (check, group)]
    return found


@given(CASES)
@settings(max_examples=100)
def test_areas_of_many_weightings_are_those_of_measure(rows: list[tuple[int, int, int]]) -> None:
    shuffled = [np.array(column) for column in zip(*rows, strict=True)]
    both = np.stack([shuffled[2], np.ones(len(rows))]).astype(float)
    precision, auroc = compute_areas(shuffled[0], shuffled[1] / 20, both)
    rows = sorted(rows, key=lambda row: -row[1])
    target, parts, weights = (np.array(column) for column in zip(*rows, strict=True))
    both = np.stack([weights, np.ones(len(rows))]).astype(float)
    for row in (0, 1):
        scores = measure(target, parts / 20, both[row], 0.5, 1.0)
        assert precision[row] == pytest.approx(scores["average_precision"], abs=1e-12)
        assert auroc[row] == pytest.approx(scores["auroc"], abs=1e-12)


@given(st.integers(0, 10_000), st.integers(6, 40))
@settings(max_examples=25)
def test_a_model_is_never_worse_than_itself(seed: int, number: int) -> None:
    table = women(number, seed)
    decision = decide(table, table.sample(frac=1, random_state=seed), policy(), CONFIDENCE)
    assert decision.promote
    assert decision.failures == ()
    assert reason(decision, "auroc").bound == reason(decision, "average_precision").bound == 0


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_rounding_decides_nothing(seed: int) -> None:
    # A model that has learnt next to nothing: its probabilities lie so close that noise ranks them.
    flat = women(20, seed).assign(probability=0.3)
    noise = np.random.default_rng(seed).normal(scale=1e-8, size=len(flat))
    decision = decide(flat, flat.assign(probability=0.3 + noise), policy(), CONFIDENCE)
    assert reason(decision, "auroc").challenger == reason(decision, "auroc").champion == 0.5
    assert decision.promote


@given(st.integers(0, 10_000), st.floats(0.01, 0.9))
@settings(max_examples=25)
def test_a_model_that_is_better_for_every_breast_passes(seed: int, step: float) -> None:
    champion = women(20, seed)
    towards = champion["target"] - champion["probability"]
    better = champion.assign(probability=champion["probability"] + step * towards)
    assert decide(champion, better, policy(), CONFIDENCE).promote
    # And the other way round it does not: its Brier score is worse.
    assert not reason(decide(better, champion, policy(), CONFIDENCE), "brier").passed


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_laxer_policy_never_refuses_what_a_stricter_one_lets_pass(one: int, other: int) -> None:
    champion, challenger = women(20, one), women(20, other)
    lax = policy(
        average_precision={"test": "non-inferiority", "margin": 0.2},
        auroc={"test": "non-inferiority", "margin": 0.2},
        subgroups={"by": ["density"], "positives": 1, "loss": 0.3},
        calibration={"score": "brier", "margin": 0.1},
    )
    strictly, laxly = (
        decide(champion, challenger, policy(), CONFIDENCE),
        decide(champion, challenger, lax, CONFIDENCE),
    )
    for strict, easy in zip(strictly.reasons, laxly.reasons, strict=True):
        assert easy.passed or not strict.passed
        assert (strict.champion, strict.challenger) == (easy.champion, easy.challenger)


def test_superiority_asks_for_more_than_not_being_worse() -> None:
    champion, better = women(300, 1, shift=0.5), women(300, 2, shift=4.0)
    superior = policy(auroc={"test": "superiority", "margin": 0.0})
    same = decide(champion, champion, superior, CONFIDENCE)
    assert [r.check for r in same.failures] == ["auroc"]
    assert decide(champion, better, superior, CONFIDENCE).promote
    too_much = policy(auroc={"test": "superiority", "margin": 0.9})
    assert (
        "must exceed +0.900"
        in reason(decide(champion, better, too_much, CONFIDENCE), "auroc").sentence
    )


def test_a_clear_loss_is_refused_and_the_sentence_has_the_numbers() -> None:
    champion, worse = women(300, 1, shift=4.0), women(300, 2, shift=0.5)
    decision = decide(champion, worse, policy(), CONFIDENCE)
    assert not decision.promote
    failed = reason(decision, "auroc")
    assert failed in decision.failures
    assert failed.challenger is not None
    assert failed.champion is not None
    assert failed.challenger < failed.champion
    assert failed.bound is not None
    assert failed.bound < failed.challenger - failed.champion < 0
    assert f"{failed.challenger:.3f} against {failed.champion:.3f}" in failed.sentence


def test_the_bound_is_below_the_difference_and_falls_with_confidence() -> None:
    champion, challenger = women(100, 1), women(100, 2)
    bounds = [
        reason(decide(champion, challenger, policy(), level), "auroc").bound
        for level in (0.5, 0.9, 0.99)
    ]
    assert bounds == sorted(bounds, reverse=True)  # type: ignore[type-var]


def test_the_fewer_cases_the_further_out_is_the_bound_that_errs_as_often_as_it_says() -> None:
    tails = []
    for number in (2, 20, 200, 20_000):
        names = pd.Series([f"w{woman}" for woman in range(2 * number)])
        target = np.array([1, 0] * number)
        tails.append(find_tail(names, target, 0.025))
    assert tails == sorted(tails)
    # Student's t of one degree of freedom at 0.025 is -12.706, times the root of 2.
    assert tails[0] == pytest.approx(norm.cdf(-12.706 * 2**0.5), rel=1e-2)
    assert tails[-1] == pytest.approx(0.025, rel=1e-3)
    # A woman counts once, however many breasts she has; and one woman tells nothing.
    twice = pd.Series(["a", "a", "b", "b"])
    assert find_tail(twice, np.array([1, 0, 0, 0]), 0.025) == 0


def test_women_are_drawn_for_both_models_together() -> None:
    # The challenger ranks as the champion does, but for one pair of breasts: the difference is
    # known far better than either auROC is.
    champion = women(100, 3)
    challenger = champion.copy()
    sick, healthy = (challenger.index[challenger["target"] == target][0] for target in (1, 0))
    challenger.loc[sick, "probability"] -= 0.05
    challenger.loc[healthy, "probability"] += 0.05
    found = reason(decide(champion, challenger, policy(), CONFIDENCE), "auroc")
    assert found.bound is not None
    assert found.bound > -0.02


def test_the_floor_of_sensitivity_holds_whatever_the_champion_does() -> None:
    table = women(100, 4, shift=0.0)
    decision = decide(table, table, policy(sensitivity_floor=0.9), CONFIDENCE)
    assert [r.check for r in decision.failures] == ["sensitivity_at_90_specificity"]
    assert "may not be below 0.900" in decision.failures[0].sentence


def test_a_gain_elsewhere_does_not_pay_for_a_group() -> None:
    champion = women(200, 5, shift=2.0)
    in_group = champion["density"] == "A"
    better = women(200, 6, shift=5.0)["probability"]
    worse = women(200, 7, shift=0.0)["probability"]
    challenger = champion.assign(probability=np.where(in_group, worse, better))
    generous = policy(
        auroc={"test": "non-inferiority", "margin": 1.0},
        average_precision={"test": "non-inferiority", "margin": 1.0},
        calibration={"score": "brier", "margin": 1.0},
        subgroups={"by": ["density"], "positives": 10, "loss": 0.1},
    )
    decision = decide(champion, challenger, generous, CONFIDENCE)
    assert [(r.check, r.group) for r in decision.failures] == [("auroc", "density A")]
    assert reason(decision, "auroc", "density B").passed


def test_a_group_that_is_too_small_is_named_and_not_judged() -> None:
    table = women(30, 8)
    table.loc[:1, "density"] = "C"  # one woman: one breast with cancer, one without
    decision = decide(
        table, table, policy(subgroups={"by": ["density"], "positives": 2, "loss": 0.1}), CONFIDENCE
    )
    assert decision.not_judged == ("density C: 2 breasts, 1 positive",)
    assert {r.group for r in decision.reasons if r.group} == {"density A", "density B"}
    assert (decision.women, decision.breasts, decision.positives) == (30, 60, 10)


@pytest.mark.parametrize("score", ["brier", "calibration_error"])
def test_probabilities_that_fit_worse_are_refused_even_if_they_rank_alike(score: str) -> None:
    champion = women(100, 9)
    challenger = champion.assign(probability=champion["probability"] ** 0.2)
    rules = policy(
        calibration={"score": score, "margin": 0.01},
        auroc={"test": "non-inferiority", "margin": 0.001},  # rounding makes ties
    )
    assert [r.check for r in decide(champion, challenger, rules, CONFIDENCE).failures] == [score]


def test_the_same_tables_give_the_same_decision() -> None:
    champion, challenger = women(50, 10), women(50, 11)
    assert decide(champion, challenger, policy(), CONFIDENCE) == decide(
        champion, challenger, policy(), CONFIDENCE
    )
    shuffled = decide(
        champion.iloc[::-1], challenger.sample(frac=1, random_state=1), policy(), CONFIDENCE
    )
    assert shuffled == decide(champion, challenger, policy(), CONFIDENCE)


def test_many_breasts_are_resampled_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion, challenger = women(50, 12), women(50, 13)
    at_once = decide(champion, challenger, policy(), CONFIDENCE)
    monkeypatch.setattr("mammo.assurance.paired._AT_ONCE", 100 * 30)
    assert decide(champion, challenger, policy(), CONFIDENCE) == at_once


def test_resamples_of_one_class_are_counted() -> None:
    table = women(3, 14)  # one woman of three has cancer: (2/3)^3 of the draws leave her out
    assert 30 <= decide(table, table, policy(), CONFIDENCE).resamples_skipped <= 90


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.iloc[1:],
        lambda table: table.assign(target=1 - table["target"]),
        lambda table: table.assign(patient_id="w0000"),
    ],
)
def test_other_breasts_than_the_champions_are_an_error(spoil: Any) -> None:
    table = women(10, 15)
    with pytest.raises(ValueError, match="not scored on the same breasts"):
        decide(table, spoil(table), policy(), CONFIDENCE)


def test_breasts_of_one_class_are_an_error() -> None:
    table = women(10, 16).assign(target=0)
    with pytest.raises(ValueError, match="one class"):
        decide(table, table, policy(), CONFIDENCE)


def test_groups_of_a_breast_come_from_its_images() -> None:
    images = pd.DataFrame(
        {
            "patient_id": ["a", "a", "b", "c"],
            "laterality": ["L", "L", "R", "L"],
            "age": [49.9, 49.9, 70.0, np.nan],
            "density": ["B", "B", None, "D"],
            "implant": [0, 1, 0, 0],
            "machine_id": ["49", "49", "216", "48"],
        }
    )
    breasts = pd.DataFrame({"patient_id": ["a", "b", "c"], "laterality": ["L", "R", "L"]})
    found = add_groups(breasts, images, ["age", "density", "implant", "machine_id"])
    assert found.iloc[:, 2:].to_numpy().tolist() == [
        ["under 50", "B", "yes", "49"],
        ["70 and over", "unknown", "no", "216"],
        ["unknown", "D", "no", "48"],
    ]
    assert list(add_groups(breasts, images, []).columns) == ["patient_id", "laterality"]
