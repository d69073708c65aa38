"""How good a classifier is: scores per breast and per image, each with its interval.

A breast is called positive when its probability is at least the threshold. Intervals come from
resampling the women, not the images: the views and breasts of one woman are not independent.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mammo.base.settings import Evaluate

SPECIFICITY = 0.9  # the one at which sensitivity_at_90_specificity is measured
CALIBRATION_BINS = 10

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A score with its bootstrap percentile interval, in the score's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of one set of cases (breasts or images), and the numbers of cases behind them."""

    scores: dict[str, Estimate]  # keys: see `measure`
    cases: int
    positives: int
    women: int
    resamples_skipped: int  # had cases of one class only

    def to_json(self) -> dict[str, Any]:
        """The content of a metrics.json: each score with its interval by its name, then counts."""
        return {
            **{name: asdict(estimate) for name, estimate in self.scores.items()},
            "cases": self.cases,
            "positives": self.positives,
            "women": self.women,
            "resamples_skipped": self.resamples_skipped,
        }


def group_by_breast(images: pd.DataFrame, aggregate: Literal["max", "mean"]) -> pd.DataFrame:
    """Combine the views of each breast into one probability.

    Args:
        images: columns of `tables.PREDICTIONS`, one row an image.
        aggregate: how the probabilities of a breast's images become one.

    Returns:
        Columns of `tables.BREASTS`, one row a (patient_id, laterality), sorted by these. A breast
        is positive if any image of it is.
    """
    groups = images.groupby(["patient_id", "laterality"], sort=True)
    return groups.agg(
        split=("split", "first"), target=("target", "max"), probability=("probability", aggregate)
    ).reset_index()


def choose_threshold(target: ArrayLike, probability: ArrayLike, beta: float) -> float:
    """Choose the threshold with the highest F-beta.

    Any threshold between two neighbouring probabilities gives the same F-beta, so the one halfway
    is taken (halfway to 0 below the lowest). Of equally good thresholds the highest is taken.

    Args:
        target: (N,) of 0 and 1, with at least one 1.
        probability: (N,) in [0, 1].
        beta: weight of recall relative to precision.
    """
    target, probability = np.asarray(target), np.asarray(probability, dtype=np.float64)
    candidates = np.unique(probability)[::-1]
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(target[order])
    called = np.searchsorted(-probability[order], -candidates, side="right")
    scores = _compute_f_beta(hits[called - 1], called, target.sum(), beta)
    best = int(np.argmax(scores))
    below = candidates[best + 1] if best + 1 < len(candidates) else 0.0
    return float((candidates[best] + below) / 2)


def evaluate(cases: pd.DataFrame, threshold: float, settings: Evaluate, seed: int) -> Evaluation:
    """Score the cases, and bootstrap the scores over the women.

    The percentile interval: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.
    Each resample draws as many women as there are, with replacement; a woman drawn twice counts
    twice, with all her breasts and views.

    Args:
        cases: columns patient_id, target (0 or 1), probability (in [0, 1]); both targets occur.
        threshold: for the scores that need one; chosen elsewhere, the same in every resample.
        settings: beta, number of resamples, confidence.
        seed: of the draws.
    """
    order = np.argsort(-cases["probability"].to_numpy(), kind="stable")
    cases = cases.iloc[order]
    target = cases["target"].to_numpy(dtype=np.int64)
    probability = cases["probability"].to_numpy(dtype=np.float64)
    codes, women = pd.factorize(cases["patient_id"], sort=True)
    values = measure(target, probability, np.ones(len(cases)), threshold, settings.beta)

    generator = np.random.default_rng(seed)
    draws: list[list[float]] = []
    for _ in range(settings.bootstrap):
        drawn = generator.integers(0, len(women), size=len(women))
        weights = np.bincount(drawn, minlength=len(women))[codes].astype(np.float64)
        positives = weights @ target
        if 0 < positives < weights.sum():
            scores = measure(target, probability, weights, threshold, settings.beta)
            draws.append(list(scores.values()))
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(np.array(draws), [tail, 1 - tail], axis=0)
    return Evaluation(
        scores={
            name: Estimate(value, float(low[i]), float(high[i]))
            for i, (name, value) in enumerate(values.items())
        },
        cases=len(cases),
        positives=int(target.sum()),
        women=len(women),
        resamples_skipped=settings.bootstrap - len(draws),
    )


def measure(
    target: Ints, probability: Floats, weights: Floats, threshold: float, beta: float
) -> dict[str, float]:
    """All scores of weighted cases, in one pass over the sorted probabilities.

    Equal to scikit-learn's scores with `sample_weight=weights`, without its sorting, so that a
    thousand resamples of 24,000 breasts take seconds.

    Args:
        target: (N,) of 0 and 1.
        probability: (N,) in [0, 1], falling.
        weights: (N,), not negative; those of each target have a positive sum.
        threshold: at and above which a case is called positive.
        beta: of F-beta.

    Returns:
        auroc: area under the ROC curve, trapezoidal, ties count half (Hanley & McNeil 1982).
        average_precision: sum of (R_n - R_n-1) P_n (scikit-learn's average_precision_score).
        f_beta, sensitivity, specificity, precision: at `threshold`. F-beta is
            (1 + b^2) tp / ((1 + b^2) tp + b^2 fn + fp) (van Rijsbergen 1979).
        f_beta_at_half: at 0.5.
        sensitivity_at_90_specificity: the highest whose specificity is at least 0.9, on the
            curve's own points, not between them.
        brier: mean of (probability - target)^2 (Brier 1950).
        calibration_error: expected calibration error, ten bins of equal width (Guo et al. 2017).
    """
    positive, negative = weights * target, weights * (1 - target)
    ends = np.append(np.flatnonzero(np.diff(probability)), len(probability) - 1)
    hits, alarms = np.cumsum(positive)[ends], np.cumsum(negative)[ends]
    all_positive, all_negative = hits[-1], alarms[-1]
    recall, false_rate = hits / all_positive, alarms / all_negative
    precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits + alarms > 0)
    specific = (all_negative - alarms) / all_negative >= SPECIFICITY

    at = int(np.searchsorted(-probability, -threshold, side="right"))
    found, false = positive[:at].sum(), negative[:at].sum()
    half = int(np.searchsorted(-probability, -0.5, side="right"))
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights * (probability - target), minlength=CALIBRATION_BINS)
    scores = {
        "auroc": np.trapezoid(np.append(0.0, recall), np.append(0.0, false_rate)),
        "average_precision": np.sum(np.diff(recall, prepend=0.0) * precision),
        "f_beta": _compute_f_beta(found, found + false, all_positive, beta),
        "f_beta_at_half": _compute_f_beta(
            positive[:half].sum(), weights[:half].sum(), all_positive, beta
        ),
        "sensitivity_at_90_specificity": recall[specific].max(initial=0.0),
        "sensitivity": found / all_positive,
        "specificity": (all_negative - false) / all_negative,
        "precision": found / (found + false) if found + false > 0 else 0.0,
        "brier": weights @ (probability - target) ** 2 / weights.sum(),
        "calibration_error": np.abs(gap).sum() / weights.sum(),
    }
    return {name: float(value) for name, value in scores.items()}


def compute_origin_scores(images: pd.DataFrame) -> dict[str, float]:
    """Compute the three figures that the origin reported, in the origin's way.

    Per breast (maximum over the views): the area under the ROC curve; the area under the
    precision-recall curve by the trapezoidal rule, which is too high because precision does not
    fall in a straight line between two points (Davis & Goadrich 2006); F2 at 0.5.

    Args:
        images: columns of `tables.PREDICTIONS`; both targets occur.
    """
    breasts = group_by_breast(images, "max")
    target, probability = breasts["target"], breasts["probability"]
    from sklearn.metrics import auc, fbeta_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(target, probability)
    return {
        "auroc": float(roc_auc_score(target, probability)),
        "auprc_trapezoid": float(auc(recall, precision)),
        "f2_at_half": float(fbeta_score(target, probability >= 0.5, beta=2, zero_division=0)),
    }


def _compute_f_beta(
    found: ArrayLike, called: ArrayLike, positives: ArrayLike, beta: float
) -> Floats:
    """F-beta from counts: (1 + b^2) tp / (called + b^2 positives), the form without 0 / 0."""
    weight = beta * beta
    return np.asarray(
        (1 + weight) * np.asarray(found) / (np.asarray(called) + weight * np.asarray(positives))
    )
