"""The promotion gate: may a challenger replace the champion?

`decide` compares the predictions of two models for the same breasts of the same test women. It is a
pure function: the same tables, policy and confidence give the same decision. `hold_against` does
so for a third model, the plan's reference, and `count_unread` says what an image counts that one of
two models cannot read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.assurance.paired import (
    compute_areas,
    find_bound,
    find_tail,
    resample_women,
    round_probabilities,
)
from mammo.assurance.plan import Margin, PromotionPolicy, Reference
from mammo.data.splits import BREAST
from mammo.evaluation.metrics import Floats, measure

AREAS = ("average_precision", "auroc")
SENSITIVITY = "sensitivity_at_90_specificity"
UNREAD, UNREAD_POSITIVES = "unread", "unread_positives"
UNKNOWN = "unknown"
ONE_CLASS = "all test breasts are of one class"

_AGE_BANDS = {"under 50": -np.inf, "50 to 59": 50, "60 to 69": 60, "70 and over": 70}


@dataclass(frozen=True)
class Reason:
    """One comparison, with every number that it rests on."""

    check: str  # a key of `metrics.measure`
    group: str | None  # of women, such as "density C"; None for all of them
    champion: float | None  # None if there is none
    challenger: float
    bound: float | None  # lower one-sided bound of challenger - champion, where one was asked for
    limit: float  # that the bound, the challenger or the difference must keep: see `sentence`
    passed: bool
    sentence: str
    breasts: int = 0  # that were compared
    positives: int = 0  # of them
    against: int | None = None  # the reference's version, whose score stands in `champion` then
    images: int = 0  # that were counted, where it is images and not breasts

    @property
    def name(self) -> str:
        """The comparison, in words."""
        whom = f"against version {self.against}" if self.against is not None else None
        return ", ".join(part for part in (self.check.replace("_", " "), self.group, whom) if part)


@dataclass(frozen=True)
class Decision:
    """Whether the challenger may replace the champion, and why."""

    promote: bool  # every reason passed
    reasons: tuple[Reason, ...]
    not_judged: tuple[str, ...]  # groups that are too small, with their size
    women: int
    breasts: int
    positives: int
    resamples_skipped: int  # had breasts of one class only

    @property
    def failures(self) -> tuple[Reason, ...]:
        """What speaks against the challenger."""
        return tuple(reason for reason in self.reasons if not reason.passed)


def decide(
    champion: pd.DataFrame, challenger: pd.DataFrame, policy: PromotionPolicy, confidence: float
) -> Decision:
    """Compare a challenger with the champion.

    Average precision and auROC: the women are resampled with replacement, the same draw for both
    models, and the lower one-sided bound of the difference, the lower of two (`find_bound`),
    is compared with the margin (non-inferiority as in Piaggio et al., JAMA 2012). The floor of
    sensitivity, the loss in a group and calibration are compared with the scores themselves.
    Probabilities that differ by rounding only are ties.

    Args:
        champion: one row a breast: patient_id, laterality, target (0 or 1), probability in [0, 1].
        challenger: the same breasts with the same targets, in any order, and a column of text for
            each group of `policy.subgroups.by`: see `add_groups`.
        policy: the limits.
        confidence: of the one-sided bounds: 1 less the error of the look (`plan.Looks`).

    Raises:
        ValueError: if the tables are not of the same breasts, or all are of one class.
    """
    old, new = _pair(champion, challenger)
    before, after = _measure(old), _measure(new)
    differences = _resample_differences(old, new, policy.bootstrap)
    tail = _find_tail(new, confidence)
    reasons = []  # of all the women
    for area, draws in zip(AREAS, differences, strict=True):
        bound = find_bound(after[area] - before[area], draws, tail)
        rule: Margin = getattr(policy, area)
        reasons.append(_check_area(area, before[area], after[area], bound, rule, confidence))
    reasons.append(_check_floor(before[SENSITIVITY], after[SENSITIVITY], policy))
    reasons.append(_check_calibration(before, after, policy))
    reasons = [_count_cases(reason, new) for reason in reasons]
    not_judged = []
    for group, members in _iterate_groups(new, policy.subgroups.by):
        positives = int(new.loc[members, "target"].sum())
        if min(positives, members.sum() - positives) < policy.subgroups.positives:
            not_judged.append(f"{group}: {members.sum()} breasts, {positives} positive")
        else:
            pair = _measure(old[members])["auroc"], _measure(new[members])["auroc"]
            reasons.append(_count_cases(_check_loss(group, *pair, policy), new[members]))
    return Decision(
        promote=all(reason.passed for reason in reasons),
        reasons=tuple(reasons),
        not_judged=tuple(not_judged),
        women=int(new["patient_id"].nunique()),
        breasts=len(new),
        positives=int(new["target"].sum()),
        resamples_skipped=policy.bootstrap - differences.shape[1],
    )


def hold_against(
    reference: pd.DataFrame,
    challenger: pd.DataFrame,
    margins: Reference,
    version: int,
    policy: PromotionPolicy,
    confidence: float,
) -> tuple[Reason, ...]:
    """Compare a challenger with the plan's reference: how much worse all steps together made it.

    Args:
        reference: its scores, as those of the champion for `decide`.
        challenger: as for `decide`.
        margins: how much average precision and auROC may be lower.
        version: the reference's number.
        policy: says how many resamples there are.
        confidence: of the one-sided bounds.

    Raises:
        ValueError: as `decide`.
    """
    old, new = _pair(reference, challenger)
    before, after, tail = _measure(old), _measure(new), _find_tail(new, confidence)
    reasons = []
    for area, draws in zip(AREAS, _resample_differences(old, new, policy.bootstrap), strict=True):
        bound = find_bound(after[area] - before[area], draws, tail)
        rule = Margin(test="non-inferiority", margin=getattr(margins, area))
        found = _check_area(area, before[area], after[area], bound, rule, confidence)
        said = f"against the reference, version {version}: {found.sentence}"
        reasons.append(_count_cases(replace(found, against=version, sentence=said), new))
    return tuple(reasons)


def count_unread(
    one: "pd.Series[float]", other: "pd.Series[float]", count: Literal["lowest", "leave_out"]
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """What an image counts that one of two models cannot read: the same for both.

    Args:
        one: the probability that a model gives each image; NaN where it cannot read it.
        other: the same of the other model.
        count: lowest: 0 for both, since what is not read raises no alarm. leave_out: no value for
            either.
    """
    unread = one.isna() | other.isna()
    value = 0.0 if count == "lowest" else np.nan
    return one.mask(unread, value), other.mask(unread, value)


def check_unread(
    champion: int, challenger: int, images: int, more: float, *, positive: bool = False
) -> Reason:
    """Compare how many images two models leave unread: what is not read is found by nobody.

    Args:
        champion: images that it cannot read.
        challenger: the same.
        images: of the test women, in all.
        more: share of them that the challenger may leave unread beyond the champion.
        positive: whether only images of positive breasts are counted. They are few among all, so
            that a model could refuse to read the hard ones and stay within a share of all.
    """
    beyond = (challenger - champion) / images
    whose = " of positive breasts" if positive else ""
    sentence = (
        f"unread images{whose} {challenger} against {champion}, of {images}: that is "
        f"{beyond:+.4f} of them, and at most {more:.4f} is allowed"
    )
    shares, check = (champion / images, challenger / images), UNREAD
    if positive:
        check = UNREAD_POSITIVES
    return Reason(check, None, *shares, None, more, beyond <= more, sentence, images=images)


def add_reasons(decision: Decision, reasons: Sequence[Reason]) -> Decision:
    """The decision with further conditions, which must pass, too."""
    passed = decision.promote and all(reason.passed for reason in reasons)
    return replace(decision, promote=passed, reasons=(*decision.reasons, *reasons))


def check_floors(breasts: pd.DataFrame, policy: PromotionPolicy) -> Decision:
    """Compare a version, for which there is no champion, with the floors of the policy.

    Args:
        breasts: one row a breast: patient_id, laterality, target (0 or 1), probability in [0, 1].
        policy: the limits.

    Raises:
        ValueError: if all breasts are of one class.
    """
    if breasts["target"].nunique() != 2:
        raise ValueError(ONE_CLASS)
    found = _measure(breasts.assign(probability=round_probabilities(breasts["probability"])))
    reasons = (_count_cases(_check_floor(None, found[SENSITIVITY], policy), breasts),)
    return Decision(
        promote=all(reason.passed for reason in reasons),
        reasons=reasons,
        not_judged=(),
        women=int(breasts["patient_id"].nunique()),
        breasts=len(breasts),
        positives=int(breasts["target"].sum()),
        resamples_skipped=0,
    )


def add_groups(breasts: pd.DataFrame, images: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Add to each breast the groups that it belongs to, as text.

    Args:
        breasts: patient_id, laterality and more, one row a breast.
        images: patient_id, laterality, age, density, implant and machine_id, one row an image.
        by: columns of `images`. Ages become bands of ten years; of images that disagree the first
            counts, and an implant in any of them; what is not given is "unknown".

    Returns:
        `breasts` with a column for each of `by`.
    """
    groups = images.sort_values("implant", ascending=False, kind="stable").groupby(BREAST)
    found = groups[["age", "density", "implant", "machine_id"]].first()
    edges = [*_AGE_BANDS.values(), np.inf]
    found["age"] = pd.cut(found["age"], edges, right=False, labels=list(_AGE_BANDS))
    found["implant"] = found["implant"].map({0: "no", 1: "yes"})
    text = found[list(by)].astype(object).where(found[list(by)].notna(), UNKNOWN).astype(str)
    return breasts.merge(text, left_on=BREAST, right_index=True, how="left", validate="one_to_one")


def _resample_differences(old: pd.DataFrame, new: pd.DataFrame, resamples: int) -> Floats:
    """Challenger less champion in each resample of the women: (2, R'), rows as AREAS.

    Resamples whose breasts are all of one class are left out.
    """
    target = new["target"].to_numpy(dtype=np.int64)
    before, after = (table["probability"].to_numpy(dtype=np.float64) for table in (old, new))
    return np.concatenate(
        [
            compute_areas(target, after, weights) - compute_areas(target, before, weights)
            for weights in resample_women(new["patient_id"], target, resamples)
        ],
        axis=1,
    )


def _pair(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both models' breasts in the same order, their probabilities rounded.

    Raises:
        ValueError: as `decide`.
    """
    old, new = (
        table.assign(probability=round_probabilities(table["probability"])).sort_values(
            BREAST, ignore_index=True
        )
        for table in (one, other)
    )
    columns = [*BREAST, "target"]
    if not old[columns].equals(new[columns]) or new.duplicated(BREAST).any():
        raise ValueError("the two models were not scored on the same breasts")
    if new["target"].nunique() != 2:
        raise ValueError(ONE_CLASS)
    return old, new


def _find_tail(cases: pd.DataFrame, confidence: float) -> float:
    target = cases["target"].to_numpy(dtype=np.int64)
    return find_tail(cases["patient_id"], target, 1 - confidence)


def _measure(cases: pd.DataFrame) -> dict[str, float]:
    """`metrics.measure` of unweighted cases, for the scores that need no threshold."""
    ranked = cases.sort_values("probability", ascending=False, kind="stable")
    target = ranked["target"].to_numpy(dtype=np.int64)
    probability = ranked["probability"].to_numpy(dtype=np.float64)
    return measure(target, probability, np.ones(len(ranked)), threshold=0.5, beta=1.0)


def _iterate_groups(
    breasts: pd.DataFrame, by: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for column in by:
        for value in sorted(breasts[column].unique()):
            yield f"{column} {value}", (breasts[column] == value).to_numpy()


def _check_area(
    name: str, before: float, after: float, bound: float, rule: Margin, confidence: float
) -> Reason:
    if rule.test == "superiority":
        limit, passed, must = rule.margin, bound > rule.margin, "must exceed"
    else:
        limit, passed, must = -rule.margin, bound >= -rule.margin, "may not be below"
    sentence = (
        f"{_name_score(name)} {after:.3f} against {before:.3f}: the difference is at least "
        f"{bound:+.3f} ({100 * confidence:.4g} % confidence) and {must} {limit:+.3f}"
    )
    return Reason(name, None, before, after, bound, limit, passed, sentence)


def _check_floor(before: float | None, after: float, policy: PromotionPolicy) -> Reason:
    limit = policy.sensitivity_floor
    against = "" if before is None else f" against {before:.3f}"
    sentence = (
        f"sensitivity at 90 % specificity {after:.3f}{against}: it may not be below {limit:.3f}"
    )
    return Reason(SENSITIVITY, None, before, after, None, limit, after >= limit, sentence)


def _check_calibration(
    before: dict[str, float], after: dict[str, float], policy: PromotionPolicy
) -> Reason:
    name, margin = policy.calibration.score, policy.calibration.margin
    worse = after[name] - before[name]
    sentence = (
        f"{_name_score(name)} {after[name]:.4f} against {before[name]:.4f}: it is worse by "
        f"{worse:+.4f}, and at most {margin:.4f} is allowed"
    )
    return Reason(name, None, before[name], after[name], None, margin, worse <= margin, sentence)


def _check_loss(group: str, before: float, after: float, policy: PromotionPolicy) -> Reason:
    limit = policy.subgroups.loss
    sentence = (
        f"{group}: auROC {after:.3f} against {before:.3f}: it is lower by {before - after:+.3f}, "
        f"and at most {limit:.3f} is allowed"
    )
    return Reason("auroc", group, before, after, None, limit, before - after <= limit, sentence)


def _count_cases(reason: Reason, breasts: pd.DataFrame) -> Reason:
    return replace(reason, breasts=len(breasts), positives=int(breasts["target"].sum()))


def _name_score(name: str) -> str:
    return {"auroc": "auROC", "brier": "Brier score"}.get(name, name.replace("_", " "))
