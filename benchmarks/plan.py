"""What a plan promises, counted on simulated rows of challengers, with the gate's own rule.

    python -m benchmarks.plan                  # 1,000 rows of 50 challengers: minutes on a core
    python -m benchmarks.plan --rows 100       # a quick look

Women and scores are drawn by the binormal model: the scores of healthy and of sick breasts are
normal, so that a model's true auROC is known (Hanley 1988). All models of a row are scored on the
same women, and their scores are related, as those of networks that learnt from the same images are.
Each row has women of its own.

The rule is that of `decide` and `hold_against` for auROC. Their bootstrap draws the same women for
the same test set, so the draws are made once, and the area of all of them is one product of
matrices. Where the normal approximation (DeLong et al. 1988, with whole women) says that a bound is
more than FAR standard errors from its limit, no draw is needed. That both give the bounds and the
verdicts of the gate's own functions is checked first; the command ends with 1 if they do not.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from scipy.stats import norm

from mammo.assurance.paired import find_bound, find_tail, resample_women, round_probabilities
from mammo.assurance.plan import Looks, Plan, load_plan
from mammo.assurance.promotion_rule import decide, hold_against
from mammo.evaluation.metrics import Floats

SICK = 0.2  # of the women; one breast of each
AUROC = 0.80  # of the first champion
SHARED = 0.6  # of a score's variance: what all models see in a breast
OF_WOMAN = 0.3  # of that: what both breasts of a woman share
CHALLENGERS = 50
FAR = 0.7  # standard errors
WOMEN = 200  # of the rows that are no better


@dataclass(frozen=True, eq=False)
class Cohort:
    """A number of test women, and the bootstrap's draws of them: the same for each row."""

    women: int
    target: np.ndarray[Any, np.dtype[np.int64]]  # (N,)
    sick: np.ndarray[Any, np.dtype[np.float32]]  # (R, P): how often each sick breast was drawn
    healthy: np.ndarray[Any, np.dtype[np.float32]]  # (R, N - P)
    pairs: Floats  # (R,): of a sick and a healthy breast

    @functools.cache  # noqa: B019  (a handful of cohorts, for the whole run)
    def tail(self, error: float) -> float:
        """Which share of the draws lies beyond a bound that errs so often."""
        return find_tail(self.table["patient_id"], self.target, error)

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """The breasts, as the gate has them."""
        names = np.repeat([f"w{woman:05d}" for woman in range(self.women)], 2)
        sides = ["L", "R"] * self.women
        return pd.DataFrame({"patient_id": names, "laterality": sides, "target": self.target})


def make_cohort(women: int, resamples: int) -> Cohort:
    """Every fifth woman has cancer, in her left breast."""
    target = np.array([[int(woman * SICK % 1 == 0), 0] for woman in range(women)]).ravel()
    names = pd.Series(np.repeat([f"w{woman:05d}" for woman in range(women)], 2))
    weights = np.concatenate(list(resample_women(names, target, resamples))).astype(np.float32)
    sick, healthy = weights[:, target == 1], weights[:, target == 0]
    pairs = sick.sum(axis=1, dtype=np.float64) * healthy.sum(axis=1, dtype=np.float64)
    return Cohort(women, target, sick, healthy, pairs)


class CohortRow:
    """The women of a row, and the models that are scored on them."""

    def __init__(self, cohort: Cohort, seed: Sequence[int]) -> None:
        self.cohort, self.random = cohort, np.random.default_rng(seed)
        woman = np.repeat(self.random.normal(size=cohort.women), 2)
        breast = self.random.normal(size=2 * cohort.women)
        self.shared = np.sqrt(OF_WOMAN) * woman + np.sqrt(1 - OF_WOMAN) * breast

    def score(self, auroc: float) -> Floats:
        """The probabilities that a model of a true auROC gives the breasts: (N,)."""
        own = self.random.normal(size=2 * self.cohort.women)
        noise = np.sqrt(SHARED) * self.shared + np.sqrt(1 - SHARED) * own
        logit = noise + np.sqrt(2) * norm.ppf(auroc) * self.cohort.target - 2
        return np.array(round_probabilities(pd.Series(1 / (1 + np.exp(-logit)))))

    def model(self, auroc: float) -> "ScoredModel":
        """A model of a true auROC."""
        return ScoredModel(self.cohort, self.score(auroc))


class ScoredModel:
    """A model on the women of a row."""

    def __init__(self, cohort: Cohort, probability: Floats) -> None:
        self.cohort, target = cohort, cohort.target
        sick, healthy = probability[target == 1][:, None], probability[target == 0][None, :]
        # Counts and halves below 2^24: float32 holds them exactly.
        self._wins = (sick > healthy).astype(np.float32) + np.float32(0.5) * (sick == healthy)
        self.auroc = float(self._wins.mean(dtype=np.float64))
        part = np.zeros(len(target))
        part[target == 1] = (self._wins.mean(axis=1) - self.auroc) / len(sick)
        part[target == 0] = (self._wins.mean(axis=0) - self.auroc) / healthy.size
        self.parts = part.reshape(-1, 2).sum(axis=1)  # each woman's, of the auROC's error

    @functools.cached_property
    def areas(self) -> Floats:
        """The auROC in each draw of the women: (R,)."""
        sick, healthy = self.cohort.sick, self.cohort.healthy
        pairs = ((sick @ self._wins) * healthy).sum(axis=1, dtype=np.float64)
        return np.asarray(pairs / self.cohort.pairs)

    def bound_over(self, other: "ScoredModel", tail: float, plain: bool = False) -> float:
        """The lower bound of this model's auROC less the other's, by the draws."""
        draws = self.areas - other.areas
        if plain:  # the percentile, as it was
            return float(np.quantile(draws, tail))
        return find_bound(self.auroc - other.auroc, draws, tail)

    def keeps(self, other: "ScoredModel", limit: float, tail: float, plain: bool = False) -> bool:
        """Whether that bound is at least a limit."""
        deviation = float(np.sqrt(((self.parts - other.parts) ** 2).sum()))
        beyond = (self.auroc - other.auroc - limit) - norm.isf(tail) * deviation
        if deviation > 0 and abs(beyond) > FAR * deviation:
            return bool(beyond > 0)
        return self.bound_over(other, tail, plain) >= limit


@dataclass(frozen=True)
class Rule:
    """What a plan says of auROC, and of the looks."""

    looks: Looks | None  # None: as it was, any number of looks of 95 % each
    margin: float
    superiority: bool = False
    reference: float | None = None  # the margin against the first version; None: there is none

    def tail_of(self, look: int, cohort: Cohort) -> float | None:
        """Which share of the draws lies beyond a look's bound; None if there is no look left."""
        if self.looks is None:
            return 0.05  # the plain percentile
        return cohort.tail(self.looks.error_of(look)) if look <= self.looks.number else None

    @property
    def limit(self) -> float:
        """What the bound of the difference from the champion must keep."""
        return np.nextafter(self.margin, 1) if self.superiority else -self.margin


def walk(row: CohortRow, rule: Rule, steps: Sequence[float], relative: bool) -> list[float]:
    """Let the gate judge one challenger after the other; return each champion's true auROC.

    Args:
        row: of women.
        rule: of the gate.
        steps: how much better than the champion each challenger truly is.
        relative: than the champion of that moment; or than the first one.
    """
    champions = [AUROC]
    now = first = row.model(AUROC)
    for look, step in enumerate(steps, start=1):
        tail = rule.tail_of(look, row.cohort)
        if tail is None:
            break
        truth = (champions[-1] if relative else AUROC) + step
        challenger = row.model(truth)
        if not challenger.keeps(now, rule.limit, tail, rule.looks is None):
            continue
        held = rule.reference is not None and now is not first
        if held and not challenger.keeps(first, -float(rule.reference or 0), tail):
            continue
        champions.append(truth)
        now = challenger
        if not relative:
            break  # one is enough
    return champions


def check_against_the_gate(plan: Plan, pairs: int) -> float:
    """Compare bounds and verdicts with those of the gate's own functions.

    Returns:
        The largest difference of two bounds; infinity if a verdict differs.
    """
    bare = {"by": [], "positives": 1, "loss": 1.0}
    policy = plan.policy.model_copy(
        update={"subgroups": plan.policy.subgroups.model_copy(update=bare)}
    )
    cohort, worst = make_cohort(WOMEN, policy.bootstrap), 0.0
    for pair in range(pairs):
        row = CohortRow(cohort, (1, pair))
        scores = row.score(AUROC), row.score(AUROC - 0.06 + 0.02 * (pair % 10))
        one, other = (ScoredModel(cohort, found) for found in scores)
        error = plan.looks.error_of(1)
        tail, confidence = cohort.tail(error), 1 - error
        ours = other.bound_over(one, tail)
        before, after = (cohort.table.assign(probability=found) for found in scores)
        margins = plan.reference
        for reason, margin in (
            (decide(before, after, policy, confidence).reasons[1], policy.auroc.margin),
            (hold_against(before, after, margins, 1, policy, confidence)[1], margins.auroc),
        ):
            assert reason.check == "auroc"
            assert reason.bound is not None
            worst = max(worst, abs(reason.bound - ours))
            if reason.passed != other.keeps(one, -margin, tail):
                return float("inf")
    return worst


def share(found: Sequence[bool]) -> str:
    """A share, and the standard error of its simulation."""
    rate = float(np.mean(found))
    return f"{rate:.3f} +- {np.sqrt(rate * (1 - rate) / len(found)):.3f}"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n")
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |", flush=True)


def show_no_better(plan: Plan, rows: int) -> None:
    """Rows of challengers that no plan would have promoted."""
    looks, margin = plan.looks, plan.policy.auroc.margin
    cohort, found = make_cohort(WOMEN, plan.policy.bootstrap), []
    falling = looks.model_copy(update={"spend": "falling", "number": 5})
    kinds = (
        (f"worse by the margin, {margin}", -margin - 1e-6, False),
        ("as good as the champion; superiority is asked for", 0.0, True),
    )
    for name, step, superiority in kinds:
        for said, of_looks in (
            ("as it was: each look has 95 %", None),
            (f"{looks.number} looks, equal shares", looks),
            (f"{falling.number} looks, falling shares", falling),
        ):
            rule = Rule(of_looks, 0.0 if superiority else margin, superiority)
            wrong = [
                len(walk(CohortRow(cohort, (2, row)), rule, [step] * CHALLENGERS, False)) > 1
                for row in range(rows)
            ]
            allowed = "nothing said" if of_looks is None else f"{of_looks.error}"
            found.append([name, said, allowed, share(wrong)])
    title = (
        f"{rows} rows of {CHALLENGERS} challengers that are no better, {WOMEN} test women: rows in "
        f"which one was promoted"
    )
    show(title, ["challengers", "plan", "error allowed", "share of rows"], found)


def show_small_losses(plan: Plan, rows: int) -> None:
    """Rows that lose a little each time."""
    margin, women, found = plan.policy.auroc.margin, 400, []
    cohort = make_cohort(women, plan.policy.bootstrap)
    many = Looks(number=CHALLENGERS, error=0.25, spend="equal", renew=0.5)
    for name, rule in (
        ("as it was: each look has 95 %, no reference", Rule(None, margin)),
        (
            f"each look has 95 %, {margin} against the first",
            Rule(None, margin, reference=margin),
        ),
        (
            f"{many.number} looks, error {many.error}, {margin} against the first",
            Rule(many, margin, reference=margin),
        ),
        (
            f"{plan.looks.number} looks, error {plan.looks.error}, {margin} against the first",
            Rule(plan.looks, margin, reference=margin),
        ),
    ):
        ends = [
            walk(CohortRow(cohort, (3, row)), rule, [-0.01] * CHALLENGERS, True)
            for row in range(rows)
        ]
        losses = np.array([AUROC - end[-1] for end in ends])
        beyond = share(list(losses > margin + 1e-9))
        cells = [f"{losses.mean():.3f}", f"{losses.max():.3f}", beyond]
        found.append([name, *cells])
    title = (
        f"{rows} rows of {CHALLENGERS} challengers, each truly 0.01 of auROC worse than the "
        f"champion of that moment; {women} test women, margin {margin}"
    )
    show(
        title,
        ["plan", "worse at the end", "at most", f"rows that are worse by more than {margin}"],
        found,
    )


def show_power(plan: Plan, rows: int) -> None:
    """Challengers that are better by 0.05."""
    found = []
    for women in (100, 200, 400, 800):
        cohort = make_cohort(women, plan.policy.bootstrap)
        for asked, superiority in (("non-inferiority", False), ("superiority", True)):
            rule = Rule(plan.looks, 0.0 if superiority else plan.policy.auroc.margin, superiority)
            first: list[int] = []
            for row in range(rows):
                at = CohortRow(cohort, (4, row))
                now, promoted = at.model(AUROC), 0
                for look in range(1, 6):
                    tail = cohort.tail(plan.looks.error_of(look))
                    if at.model(AUROC + 0.05).keeps(now, rule.limit, tail):
                        promoted = look
                        break
                first.append(promoted)
            within = [share([0 < x <= look for x in first]) for look in (1, 3, 5)]
            found.append([f"{women}", f"{round(women * SICK)}", asked, *within])
    title = (
        f"{rows} rows of challengers that are truly better by 0.05 of auROC: rows with one promoted"
    )
    header = ["test women", "with cancer", "auROC's test", "look 1", "within 3", "within 5"]
    show(title, header, found)


def main(
    rows: Annotated[int, typer.Option(min=1, help="Of challengers, in each line.")] = 1000,
    path: Annotated[Path, typer.Option("--plan", help="Whose rule and looks.")] = Path(
        "recipes/plans/mini-mias.yaml"
    ),
    error: Annotated[float, typer.Option(help="Of all looks, instead of it.")] = 0.05,
) -> None:
    """Print the tables of docs/plan.md."""
    plan = load_plan(path)
    plan = plan.model_copy(
        update={"looks": plan.looks.model_copy(update={"error": error, "sets": 1})}
    )
    pairs = max(10, rows // 20)
    worst = check_against_the_gate(plan, pairs)
    print(f"{pairs} pairs by the gate's own functions: bounds differ by at most {worst:.1e}")
    if not worst < 1e-9:
        print("the two rules are not the same")
        sys.exit(1)
    show_no_better(plan, rows)
    show_small_losses(plan, max(1, rows // 20))
    show_power(plan, max(1, rows // 5))


if __name__ == "__main__":
    typer.run(main)
