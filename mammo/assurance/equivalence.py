"""Whether a model that was trained again does the same for the women of the test set.

On a machine with other arithmetic, training ends with other weights: rounding errors grow from the
first steps on, until the weights differ as much as after training with another seed. So weights and
losses say nothing. The model must still do its work: score the same women as well, rank their
breasts alike, and decide alike at its threshold. Each of these is compared with a bound, with an
interval over the women, so that a small test set proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mammo.assurance.paired import compute_areas, resample_women, round_probabilities
from mammo.base.settings import Audit
from mammo.data.splits import BREAST
from mammo.evaluation.metrics import Floats

Outcome = Literal["equivalent", "not equivalent", "too small to tell"]

_SHOWN = 3  # breasts that are named


@dataclass(frozen=True)
class Scored:
    """The predictions of one model for the test women's breasts.

    `breasts` has one row a breast: patient_id, laterality, target (0 or 1), probability in [0, 1].
    At and above `threshold`, which was chosen on the model's validation women, a breast is called
    positive.
    """

    breasts: pd.DataFrame
    threshold: float


@dataclass(frozen=True)
class Measure:
    """One of the four comparisons, with every number that it rests on."""

    name: str
    then: float | None  # of the recorded model; None for a measure of both models together
    now: float | None  # of the re-made model; None as above
    value: float  # the difference now - then of a score; else the correlation, or the share
    low: float  # its percentile interval over resamples of the women
    high: float
    bound: float  # a score's value must lie within +-bound, any other at or above it
    holds: bool
    refuted: bool  # the interval lies wholly beyond the bound


@dataclass(frozen=True)
class Rescoring:
    """How far the recorded predictions are from what the recorded weights give on this machine."""

    cases: int
    largest: float  # difference of probabilities
    where: str  # the case with the largest
    bound: float

    @property
    def holds(self) -> bool:
        """Whether only rounding tells them apart."""
        return self.largest <= self.bound


@dataclass(frozen=True)
class Equivalence:
    """The result of the four comparisons."""

    outcome: Outcome
    reason: str  # why they are not equivalent or why it cannot be said; empty if equivalent
    measures: tuple[Measure, ...]
    women: int
    breasts: int
    positives: int  # women with a positive breast


def find_case_difference(then: pd.DataFrame, now: pd.DataFrame) -> str:
    """Say how the breasts of two tables, or their targets, differ; empty if they do not.

    Args:
        then: columns of `Scored.breasts`.
        now: the same of the re-made model.
    """
    one, other = (table.set_index(BREAST)["target"] for table in (then, now))
    for name, index in (("recorded", one.index), ("re-made", other.index)):
        if index.has_duplicates:
            return f"the {name} predictions hold a breast more than once"
    for what, only in (
        ("are not in the re-made predictions", one.index.difference(other.index)),
        ("are new in the re-made predictions", other.index.difference(one.index)),
    ):
        if len(only):
            return f"{len(only)} of the test breasts {what}: {_name_breasts(list(only))}"
    relabelled = one.index[one != other.reindex(one.index)]
    if len(relabelled):
        named = _name_breasts(list(relabelled))
        return f"{len(relabelled)} of the test breasts have another label: {named}"
    return ""


def compare_models(then: Scored, now: Scored, settings: Audit) -> Equivalence:
    """Compare the re-made model with the recorded one.

    Two one-sided tests in the form of an interval (Schuirmann, J Pharmacokinet Biopharm 1987): the
    paired difference of auROC, and of average precision, is shown to be small if its interval of
    confidence 1 - 2 alpha lies within the margin. Spearman's correlation of the breasts'
    probabilities and the share of equal decisions must reach their bounds. The intervals are
    percentiles over resamples of the women (Efron & Tibshirani 1993, ch. 13), the same for all.

    * equivalent: both intervals lie within their margins, and both bounds are reached.
    * not equivalent: a difference is proven. One interval lies completely outside its margin or
      bound; or the intervals of both scores lie within their margins, which shows that there are
      enough women, and a bound is not reached.
    * too small to tell: neither. The interval of a score contains differences inside and outside
      its margin, because it is wide or near the end of the margin; more women would decide it. (It
      would mostly be wrong to call this a difference: of simulated pairs of models of the same
      quality, 18 of 20 are like this if half the width is three quarters of the margin.)

    A bootstrap of few cases underestimates how much they vary, so its intervals are too narrow. So
    with fewer than `settings.women` women who have a positive breast, or who have none, the scores
    prove nothing in either direction; correlation and agreement, which rest on all breasts, prove
    nothing with fewer women in total.

    Args:
        then: the recorded model.
        now: the re-made one, on the same breasts, in any order.
        settings: the bounds.

    Raises:
        ValueError: if `find_case_difference` finds a difference, or all breasts are of one class.
    """
    if difference := find_case_difference(then.breasts, now.breasts):
        raise ValueError(difference)
    old = _sort_breasts(then.breasts)
    if old["target"].nunique() != 2:
        raise ValueError("all test breasts are of one class")
    measures = _measure_differences(then, now, settings)
    positive_women = old.groupby("patient_id")["target"].max()
    positives, women = int(positive_women.sum()), len(positive_women)
    outcome, reason = _judge(measures, positives, women - positives, settings.women)
    return Equivalence(outcome, reason, measures, women, len(old), positives)


def _measure_differences(then: Scored, now: Scored, settings: Audit) -> tuple[Measure, ...]:
    """The four comparisons: of auROC, average precision, ranks and decisions."""
    old, new = (_sort_breasts(scored.breasts) for scored in (then, now))
    target = old["target"].to_numpy(dtype=np.int64)
    before, after = (table["probability"].to_numpy(dtype=np.float64) for table in (old, new))
    # Decisions are taken on the probabilities as they are.
    agrees = (_sort_probabilities(then) >= then.threshold) == (
        _sort_probabilities(now) >= now.threshold
    )

    def compare(weights: Floats) -> Floats:
        """Differences of average precision and auROC, correlation and agreement: (4, R)."""
        return np.vstack(
            [
                compute_areas(target, after, weights) - compute_areas(target, before, weights),
                _correlate_ranks(before, after, weights),
                weights @ agrees / weights.sum(axis=1),
            ]
        )

    whole = np.ones((1, len(target)))
    precision, auroc, correlation, agreement = compare(whole)[:, 0]
    draws = np.concatenate(
        [compare(w) for w in resample_women(old["patient_id"], target, settings.bootstrap)], axis=1
    )
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=1)
    scores = np.column_stack(
        [compute_areas(target, before, whole), compute_areas(target, after, whole)]
    )
    return (
        _test_margin("auROC", scores[1], auroc, low[1], high[1], settings.auroc_margin),
        _test_margin(
            "average precision",
            scores[0],
            precision,
            low[0],
            high[0],
            settings.average_precision_margin,
        ),
        _test_bound("rank correlation", correlation, low[2], high[2], settings.rank_correlation),
        _test_bound("equal decisions", agreement, low[3], high[3], settings.agreement),
    )


def compare_predictions(recorded: pd.DataFrame, again: pd.DataFrame, bound: float) -> Rescoring:
    """Compare recorded predictions with those that the recorded weights give now.

    Args:
        recorded: a column `probability`, in [0, 1]; the other columns name the case.
        again: the same cases in the same order.
        bound: that a probability may be off by.

    Raises:
        ValueError: if they are of other cases, or the cases have other labels.
    """
    of_what = [name for name in recorded.columns if name != "probability"]
    if not recorded[of_what].equals(again.drop(columns="probability")):
        raise ValueError("they are of other cases, or the cases have other labels")
    difference = (recorded["probability"] - again["probability"]).abs().to_numpy()
    at = int(np.argmax(difference))
    then, now = (table["probability"].iloc[at] for table in (recorded, again))
    ids = [name for name in of_what if name in ("patient_id", "image_id", "laterality")]
    case = " ".join(str(recorded[name].iloc[at]) for name in ids)
    where = f"{case} was {then:.6g}, is {now:.6g}"
    return Rescoring(len(recorded), float(difference[at]), where, bound)


def _judge(
    measures: Sequence[Measure], positives: int, negatives: int, least: int
) -> tuple[Outcome, str]:
    scores, bounds = measures[:2], measures[2:]
    refuted = [measure for measure in bounds if measure.refuted]
    if refuted and positives + negatives >= least:
        return "not equivalent", _describe(refuted[0])
    if min(positives, negatives) < least:
        return "too small to tell", (
            f"{positives} of the test women have a positive breast and {negatives} have none; of "
            f"each kind at least {least} are needed"
        )
    missed = [measure for measure in scores if not measure.holds]
    if proof := [measure for measure in missed if measure.refuted]:
        return "not equivalent", _describe(proof[0])
    if missed:
        return "too small to tell", _describe(missed[0])
    if below := [measure for measure in bounds if not measure.holds]:
        return "not equivalent", _describe(below[0])
    return "equivalent", ""


def _test_margin(
    name: str, scores: Floats, value: float, low: float, high: float, margin: float
) -> Measure:
    holds, refuted = bool(-margin <= low and high <= margin), bool(low > margin or high < -margin)
    then, now = map(float, scores)
    return Measure(name, then, now, float(value), float(low), float(high), margin, holds, refuted)


def _test_bound(name: str, value: float, low: float, high: float, bound: float) -> Measure:
    holds, refuted = bool(value >= bound), bool(high < bound)
    return Measure(name, None, None, float(value), float(low), float(high), bound, holds, refuted)


def _describe(measure: Measure) -> str:
    if measure.then is None:
        interval = f"({measure.low:.3f} to {measure.high:.3f})"
        return (
            f"{measure.name} {measure.value:.3f} {interval}: at least {measure.bound:g} is needed"
        )
    return (
        f"{measure.name} was {measure.then:.3f} and is {measure.now:.3f}: the interval of the "
        f"difference, {measure.low:+.3f} to {measure.high:+.3f}, is not within +-{measure.bound:g}"
    )


def _sort_breasts(breasts: pd.DataFrame) -> pd.DataFrame:
    """The breasts as both tables have them, with probabilities as `round_probabilities`."""
    return breasts.assign(probability=round_probabilities(breasts["probability"])).sort_values(
        BREAST, ignore_index=True
    )


def _sort_probabilities(scored: Scored) -> Floats:
    return scored.breasts.sort_values(BREAST)["probability"].to_numpy(dtype=np.float64)


def _correlate_ranks(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Spearman's rho of weighted cases: Pearson's correlation of their ranks, ties at the middle.

    If a model gives all cases the same rank, there is no order to compare: the result is 0, or 1 if
    both models do so.

    Args:
        one: (N,) of the first model.
        other: (N,) of the second.
        weights: (R, N), not negative whole numbers: how often a case is there.

    Returns:
        An array (R,).
    """
    x, y = (_rank(values, weights) for values in (one, other))
    total = weights.sum(axis=1, keepdims=True)
    x -= (weights * x).sum(axis=1, keepdims=True) / total
    y -= (weights * y).sum(axis=1, keepdims=True) / total
    both, of_x, of_y = ((weights * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y)))
    scale = np.sqrt(of_x * of_y)
    flat = np.where((of_x == 0) & (of_y == 0), 1.0, 0.0)
    correlation: Floats = np.divide(both, scale, out=flat, where=scale > 0)
    return correlation


def _rank(values: Floats, weights: Floats) -> Floats:
    """The middle of the ranks that each case's ties take: (R, N)."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return middle[:, group]


def _name_breasts(breasts: list[tuple[str, str]]) -> str:
    shown = [f"{woman} {laterality}" for woman, laterality in breasts[:_SHOWN]]
    more = f" and {len(breasts) - _SHOWN} more" if len(breasts) > _SHOWN else ""
    return ", ".join(shown) + more
