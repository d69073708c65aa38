"""Scores against scikit-learn's and against cases worked out by hand; intervals."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from mammo.base.settings import Evaluate
from mammo.evaluation.metrics import (
    choose_threshold,
    compute_origin_scores,
    evaluate,
    group_by_breast,
    measure,
)

# Few distinct probabilities, so that ties are common, and 0, 0.5 and 1 occur.
CASES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=60
).filter(
    lambda rows: {target for target, _, weight in rows if weight} == {0, 1}  # both classes weigh
)
THRESHOLD = st.integers(0, 20).map(lambda part: part / 20)


def settings_with(**changes: object) -> Evaluate:
    values = {"target": ["cancer"], "aggregate": "max", "beta": 2.0, "bootstrap": 200}
    return Evaluate.model_validate({**values, "confidence": 0.95, **changes})


def arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = sorted(rows, key=lambda row: -row[1])
    target, parts, weights = (np.array(column) for column in zip(*rows, strict=True))
    return target, parts / 20, weights.astype(float)


def synthetic(women: int, seed: int, shift: float = 1.0) -> pd.DataFrame:
    """Four images a woman, cancer in one breast of every fifth; the cancer's scores are higher."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for woman in range(women):
        sick = generator.random() < 0.2
        for laterality in "LR":
            target = int(sick and laterality == "L")
            for view in ("CC", "MLO"):
                logit = generator.normal() + shift * target - 1
                rows.append(
                    {
                        "patient_id": f"w{woman}",
                        "image_id": f"i{len(rows)}",
                        "laterality": laterality,
                        "view": view,
                        "split": "test",
                        "target": target,
                        "probability": 1 / (1 + np.exp(-logit)),
                    }
                )
    return pd.DataFrame(rows)


@given(CASES, THRESHOLD, st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=100)
def test_scores_equal_scikit_learn(
    rows: list[tuple[int, int, int]], threshold: float, beta: float
) -> None:
    target, probability, weights = arrays(rows)
    scores = measure(target, probability, weights, threshold, beta)

    called = probability >= threshold
    weighted = {"sample_weight": weights}
    false_rate, recall, _ = metrics.roc_curve(target, probability, **weighted)
    negatives = weights[target == 0].sum()
    # specificity is at least 0.9: 10 tn >= 9 n, whole numbers on both sides
    specific = np.round(10 * negatives * (1 - false_rate)) >= 9 * negatives
    expected = {
        "auroc": metrics.roc_auc_score(target, probability, **weighted),
        "average_precision": metrics.average_precision_score(target, probability, **weighted),
        "f_beta": metrics.fbeta_score(target, called, beta=beta, zero_division=0, **weighted),
        "f_beta_at_half": metrics.fbeta_score(
            target, probability >= 0.5, beta=beta, zero_division=0, **weighted
        ),
        "sensitivity_at_90_specificity": recall[specific].max(),
        "sensitivity": metrics.recall_score(target, called, **weighted),
        "specificity": metrics.recall_score(target, called, pos_label=0, **weighted),
        "precision": metrics.precision_score(target, called, zero_division=0, **weighted),
        "brier": metrics.brier_score_loss(target, probability, **weighted),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


@given(CASES, THRESHOLD)
@settings(max_examples=50)
def test_a_weight_of_k_is_k_copies(rows: list[tuple[int, int, int]], threshold: float) -> None:
    target, probability, weights = arrays(rows)
    copies = weights.astype(int)
    repeated = np.repeat(target, copies), np.repeat(probability, copies)
    assert measure(target, probability, weights, threshold, 2.0) == pytest.approx(
        measure(*repeated, np.ones(copies.sum()), threshold, 2.0), abs=1e-12
    )


def test_scores_are_those_of_a_case_worked_out_by_hand() -> None:
    # Two cancers, at ranks 1 and 3 of four.
    target, probability = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.6, 0.1])
    scores = measure(target, probability, np.ones(4), 0.7, 2.0)
    assert scores["auroc"] == pytest.approx(3 / 4)  # of four pairs one is the wrong way round
    assert scores["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert scores["f_beta"] == pytest.approx(5 * 1 / (5 * 1 + 4 * 1 + 1))  # tp 1, fn 1, fp 1
    assert scores["f_beta_at_half"] == pytest.approx(5 * 2 / (5 * 2 + 0 + 1))  # tp 2, fp 1
    assert scores["sensitivity_at_90_specificity"] == 0.5
    assert scores["sensitivity"] == scores["specificity"] == scores["precision"] == 0.5
    assert scores["brier"] == pytest.approx((0.01 + 0.64 + 0.16 + 0.01) / 4)
    # Each in a bin of its own: 0.9 against 1, 0.8 against 0, 0.6 against 1, 0.1 against 0.
    assert scores["calibration_error"] == pytest.approx((0.1 + 0.8 + 0.4 + 0.1) / 4)


def test_a_perfectly_calibrated_bin_has_no_calibration_error() -> None:
    target, probability = np.array([1, 0, 0, 0]), np.full(4, 0.25)
    assert measure(target, probability, np.ones(4), 0.5, 2.0)["calibration_error"] == 0


def test_nobody_called_positive_scores_zero_not_nan() -> None:
    scores = measure(np.array([1, 0]), np.array([0.4, 0.3]), np.ones(2), 0.9, 2.0)
    assert scores["f_beta"] == scores["precision"] == scores["sensitivity"] == 0
    assert scores["specificity"] == 1


@given(CASES, st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=50)
def test_no_threshold_beats_the_best(rows: list[tuple[int, int, int]], beta: float) -> None:
    target, probability, _ = arrays(rows)
    threshold = choose_threshold(target, probability, beta)

    def score(at: float) -> float:
        return float(metrics.fbeta_score(target, probability >= at, beta=beta, zero_division=0))

    assert 0 <= threshold <= 1
    assert score(threshold) == pytest.approx(max(score(at) for at in np.unique(probability)))


def test_best_threshold_lies_halfway_and_the_highest_wins() -> None:
    assert choose_threshold([1, 0], [0.8, 0.4], 2.0) == pytest.approx(0.6)
    assert choose_threshold([1, 1], [0.8, 0.4], 2.0) == pytest.approx(0.2)
    # F1 is 2/3 at 0.9 (tp 1, fn 1) and 2/3 at 0.3 (tp 2, fp 2).
    assert choose_threshold([1, 0, 0, 1], [0.9, 0.6, 0.5, 0.3], 1.0) == pytest.approx(0.75)


def test_breasts_take_the_maximum_or_the_mean_of_their_views() -> None:
    images = pd.DataFrame(
        {
            "patient_id": ["b", "b", "b", "a"],
            "image_id": ["1", "2", "3", "4"],
            "laterality": ["L", "L", "R", "L"],
            "view": ["CC", "MLO", "CC", "CC"],
            "split": ["test", "test", "test", "validation"],
            "target": [0, 1, 0, 0],
            "probability": [0.2, 0.6, 0.1, 0.5],
        }
    )
    breasts = group_by_breast(images, "max")
    assert list(breasts.columns) == ["patient_id", "laterality", "split", "target", "probability"]
    assert breasts.to_numpy().tolist() == [
        ["a", "L", "validation", 0, 0.5],
        ["b", "L", "test", 1, 0.6],
        ["b", "R", "test", 0, 0.1],
    ]
    assert group_by_breast(images, "mean")["probability"].tolist() == pytest.approx([0.5, 0.4, 0.1])


def test_bootstrap_is_reproducible_and_depends_on_the_seed_only() -> None:
    images = synthetic(60, seed=1)
    first = evaluate(images, 0.5, settings_with(), seed=7)
    assert first == evaluate(images, 0.5, settings_with(), seed=7)
    assert first != evaluate(images, 0.5, settings_with(), seed=8)
    shuffled = images.sample(frac=1, random_state=3)
    assert first.scores["auroc"] == evaluate(shuffled, 0.5, settings_with(), seed=7).scores["auroc"]


def test_intervals_hold_the_value_and_widen_with_confidence() -> None:
    images = synthetic(80, seed=2)
    narrow = evaluate(images, 0.3, settings_with(confidence=0.5), seed=7)
    wide = evaluate(images, 0.3, settings_with(confidence=0.95), seed=7)
    for name, score in wide.scores.items():
        assert score.low <= narrow.scores[name].low <= narrow.scores[name].high <= score.high
        # Binning makes the resampled calibration error larger on average, so it is left out.
        if name != "calibration_error":
            assert score.low <= score.value <= score.high, name
    assert (wide.women, wide.cases, wide.positives) == (80, 320, int(images["target"].sum()))


def test_the_women_are_resampled_not_the_images() -> None:
    # Copies of each woman's images add nothing to what is known of the women.
    images = synthetic(60, seed=3)
    copies = pd.concat([images] * 5, ignore_index=True)
    once = evaluate(images, 0.3, settings_with(), seed=7).scores["auroc"]
    often = evaluate(copies, 0.3, settings_with(), seed=7).scores["auroc"]
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_ninety_percent_intervals_cover_the_truth_about_nine_times_in_ten() -> None:
    truth = evaluate(synthetic(5_000, seed=99), 0.3, settings_with(bootstrap=100), seed=1)
    covered = 0
    for seed in range(40):
        scores = evaluate(synthetic(60, seed), 0.3, settings_with(confidence=0.9), seed=seed).scores
        covered += scores["auroc"].low <= truth.scores["auroc"].value <= scores["auroc"].high
    assert 29 <= covered <= 40  # binomial(40, 0.9) is below once in 1,000


def test_resamples_with_one_class_only_are_skipped_and_counted() -> None:
    images = pd.DataFrame(
        {
            "patient_id": ["a", "b", "c", "d"],
            "target": [1, 0, 0, 0],
            "probability": [0.9, 0.1, 0.2, 0.3],
        }
    )
    result = evaluate(images, 0.5, settings_with(bootstrap=1000), seed=1)
    # Without the one sick woman: (3/4)^4 = 0.316. With her only: (1/4)^4 = 0.004.
    assert 270 <= result.resamples_skipped <= 370
    assert result.scores["auroc"].low == 1


def test_origin_scores_are_scikit_learns_on_the_maximum() -> None:
    images = synthetic(60, seed=4)
    breasts = images.groupby(["patient_id", "laterality"])[["target", "probability"]].max()
    target, probability = breasts["target"], breasts["probability"]
    precision, recall, _ = metrics.precision_recall_curve(target, probability)
    assert compute_origin_scores(images) == {
        "auroc": metrics.roc_auc_score(target, probability),
        "auprc_trapezoid": metrics.auc(recall, precision),
        "f2_at_half": metrics.fbeta_score(target, probability >= 0.5, beta=2),
    }


def test_a_thousand_resamples_of_24000_breasts_take_seconds() -> None:
    generator = np.random.default_rng(1)
    breasts = pd.DataFrame(
        {
            "patient_id": np.repeat([f"w{woman}" for woman in range(12_000)], 2),
            "target": (generator.random(24_000) < 0.02).astype(int),
            "probability": generator.random(24_000),
        }
    )
    start = time.process_time()
    evaluate(breasts, 0.5, settings_with(bootstrap=100), seed=1)
    assert time.process_time() - start < 6  # a tenth of a minute's worth
