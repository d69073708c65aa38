"""plan.yaml as typed, validated objects: how versions follow each other, and how each is judged.

Every key is required and an unknown key is an error, as in params.yaml. The plan holds what may
change between versions, the policy of the gate, how often one set of test women may be looked at,
with which error in all, and the version that each challenger is held against besides the champion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mammo.base.settings import Fraction, Positive, Section, read_yaml, validate

PLAN_FILE = "plan.yaml"

BEYOND = 5
"""Resamples of the women that must lie beyond a bound: with fewer it is a guess."""


class Margin(Section):
    """A score that the challenger must keep (within `margin`), or better (by more than it)."""

    test: Literal["non-inferiority", "superiority"]
    margin: Fraction


class Subgroups(Section):
    """Groups of women none of whom may pay for a gain elsewhere."""

    by: list[Literal["age", "density", "implant", "machine_id"]]  # age in bands of ten years
    positives: Positive  # a group with fewer positive or fewer negative breasts is not judged
    loss: Fraction  # the largest of auROC


class Calibration(Section):
    """How much worse the probabilities may fit the outcomes."""

    score: Literal["brier", "calibration_error"]
    margin: Fraction


class PromotionPolicy(Section):
    """When a challenger replaces the champion; `Looks` says with which confidence."""

    approve: Literal["automatic", "manual"]  # manual: `mammoflow promote 3 --reason "..."`
    bootstrap: Annotated[int, Field(ge=100)]  # paired resamples of the women
    average_precision: Margin
    auroc: Margin
    sensitivity_floor: Fraction  # at 90 % specificity
    subgroups: Subgroups
    calibration: Calibration


class Range(Section):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    @model_validator(mode="after")
    def _run_upwards(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"must run from low to high, not from {self.low} to {self.high}")
        return self

    def allows(self, value: object) -> bool:
        """Whether a setting is in the range."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high  # type: ignore[arg-type]


class Choice(Section):
    """One of these values."""

    values: list[Any] = Field(min_length=1)

    def allows(self, value: object) -> bool:
        """Whether a setting is one of the values."""
        return value in self.values


class AllowedChanges(Section):
    """What may differ between the reference and a version. Whatever is not named must stay."""

    # By name in params.yaml; a name such as `tune` stands for all beneath it.
    params: Literal["all"] | dict[str, Literal["any"] | Range | Choice]
    data: Literal["all", "grow", "none"]  # grow: every image and label that was there stays
    code: Literal["all"] | list[str]  # folders and files that may change

    @property
    def permit_everything(self) -> bool:
        """Whether no version can be outside the plan."""
        return (self.params, self.data, self.code) == ("all", "all", "all")


class Looks(Section):
    """How often models may be scored on test women, and the error over the plan's life.

    `sets` sets of test women share the error evenly, and the looks at a set share what it has. A
    plan without `sets` is from before: each of its sets, as many as come, has the whole error. A
    model that is worse than the margin allows is promoted at a look with a probability of at most
    the look's error, so at any of them with at most the sum (Bonferroni's inequality, whatever the
    models have in common).
    """

    number: Positive
    sets: Positive | None = None
    error: Annotated[float, Field(gt=0, lt=1)]
    # equal: each look has the same share. falling: the k-th has one in proportion to 1/k.
    spend: Literal["equal", "falling"]
    # New women that open the next set, as a share of the women that opened this one.
    renew: Annotated[float, Field(gt=0, le=1)]

    @property
    def error_of_set(self) -> float:
        """The error that all looks at one set may spend."""
        return self.error / (self.sets or 1)

    def error_of(self, look: int) -> float:
        """The error that a look may spend.

        Args:
            look: its number at this set of women: 1 to `number`.
        """
        if self.spend == "equal":
            return self.error_of_set / self.number
        weights = [1 / k for k in range(1, self.number + 1)]
        return self.error_of_set * weights[look - 1] / sum(weights)


class Reference(Section):
    """The version that each challenger is held against besides the champion, and the margins."""

    version: Literal["first"] | Positive  # first: the first one approved under a plan
    average_precision: Fraction
    auroc: Fraction


class UnreadRule(Section):
    """Images of the test women that one of two compared models cannot read."""

    count: Literal["lowest", "leave_out"]  # as probability 0 for both, or left out for both
    # Of the images, and of those of positive breasts: that the challenger may leave unread beyond
    # the champion.
    more: Fraction


class Plan(Section):
    """The whole of plan.yaml. No stage depends on it."""

    changes: AllowedChanges
    policy: PromotionPolicy
    unread: UnreadRule
    looks: Looks
    reference: Reference

    @model_validator(mode="after")
    def _show_what_the_looks_need(self) -> "Plan":
        smallest = min(self.looks.error_of(1), self.looks.error_of(self.looks.number))
        needed = BEYOND / smallest
        if self.policy.bootstrap < needed * (1 - 1e-9):
            raise ValueError(
                f"policy.bootstrap = {self.policy.bootstrap} is too small for looks with an error "
                f"of {smallest:.3g}: it takes {needed:.0f} resamples, or fewer looks, or a larger "
                f"looks.error"
            )
        for name in ("average_precision", "auroc"):
            rule: Margin = getattr(self.policy, name)
            margin = getattr(self.reference, name)
            if rule.test == "non-inferiority" and margin < rule.margin:
                raise ValueError(
                    f"reference.{name} = {margin} is smaller than policy.{name}.margin = "
                    f"{rule.margin}: the first challenger is held against both at once"
                )
        return self


def load_plan(path: Path = Path(PLAN_FILE)) -> Plan:
    """Read and validate a plan.

    Raises:
        UserError: naming the file and each key that is missing, unknown or out of range.
    """
    return validate(Plan, read_yaml(path), str(path))


def find_permission(
    permitted: Mapping[str, Literal["any"] | Range | Choice], name: str
) -> Literal["any"] | Range | Choice | None:
    """What a plan permits of a setting: its own entry, or that of the nearest name above it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        found = permitted.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None


def name_outside(
    permitted: Mapping[str, Literal["any"] | Range | Choice],
    before: Mapping[str, object] | None,
    now: Mapping[str, object],
) -> list[str]:
    """A phrase for each setting that a plan does not permit.

    Args:
        permitted: by name.
        before: the reference's settings, nested mappings as one with names joined by dots; None if
            there is no reference yet, so that only ranges and choices count.
        now: the version's.
    """
    found = []
    for name in sorted({*now, *(before or {})}):
        value = now.get(name)
        rule = find_permission(permitted, name)
        if rule == "any":
            continue
        if isinstance(rule, (Range, Choice)):
            if not rule.allows(value):
                found.append(f"{name} = {value} is not {_describe(rule)}")
        elif before is not None and (name in before, before.get(name)) != (name in now, value):
            found.append(f"{name} = {value} was {before.get(name)}")
    return found


def _describe(rule: Range | Choice) -> str:
    if isinstance(rule, Range):
        return f"{rule.low:g} to {rule.high:g}"
    return f"one of {', '.join(map(str, rule.values))}"
