"""What an audit found, as typed objects: the JSON report, and what the page is made from.

python -m flows.audit.record > flows/audit/audit.schema.json    # after a change of these
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flows.snapshots.environment import Environment, EnvironmentDifference
from mammo.assurance.equivalence import Equivalence, Rescoring
from mammo.assurance.tolerance import Likeness

Verdict = Literal[
    "reproduced bit for bit",
    "reproduced in effect",  # other bytes, on a machine that computes differently; the same in use
    "reproduced, but unsound",
    "not reproduced",
    "too small to tell",  # there are too few test women to show either
    "cannot be judged",
    "records agree, not re-run",  # --quick: nothing was run again, so neither is shown
    "records agree, not re-run, but unsound",
]

OutLikeness = Likeness | Literal["follows from training"]
"""The last: other bytes of a stage after training, where the arithmetic differs; not judged."""

Step = Literal[
    "evidence",
    "provenance",
    "integrity",
    "leakage",
    "standard",
    "reproduction",
    "comparison",
    "rescoring",
    "equivalence",
]

EXIT_STATUS: Mapping[Verdict, int] = {
    "reproduced bit for bit": 0,
    "reproduced in effect": 0,
    "records agree, not re-run": 0,
    "reproduced, but unsound": 1,
    "records agree, not re-run, but unsound": 1,
    "not reproduced": 1,
    "too small to tell": 2,
    "cannot be judged": 2,
}


class Record(BaseModel):
    """Immutable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """One thing that is not as it should be.

    `missing`: a record that is needed to judge. `wrong`: a contradiction. `unsound`: the
    model can be reproduced, and should not be trusted. `note`: it changes no verdict.
    """

    step: Step
    kind: Literal["missing", "wrong", "unsound", "note"]
    sentence: str


class Family(Record):
    """A family of kernels, and the hash of what it computes; None where there is none."""

    name: str
    then: str | None
    now: str | None

    @property
    def same(self) -> bool:
        """Whether this machine computes it as the other machine did."""
        return self.then == self.now


class Machine(Record):
    """The arithmetic of a machine that made the version, against this machine's."""

    stages: Sequence[str]  # that ran on it
    recorded: bool
    families: Sequence[Family]


class Standard(Record):
    """What a re-run on this machine must give; chosen before anything runs again."""

    name: Literal["bit for bit", "equivalence"]
    sentence: str
    machines: Sequence[Machine]


class ComparedOut(Record):
    """An out of a stage, then and now."""

    path: str
    hash_then: str
    hash_now: str | None  # None if it was not made again
    likeness: OutLikeness
    details: Sequence[str]  # of the files that differ, the least alike first


class ComparedStage(Record):
    """A stage, then and now."""

    stage: str
    likeness: OutLikeness  # the least of its outs
    deterministic: bool | None  # None if it gave no reason to run it twice
    outs: Sequence[ComparedOut]


class Setting(Record):
    """A setting that differs from the previous version's."""

    key: str
    previous: str | None
    this: str | None


class Metric(Record):
    """A metric then and now; low and high are the interval that was recorded."""

    stage: str
    name: str
    then: float
    now: float | None
    low: float | None
    high: float | None


class Check(Record):
    """One thing that was checked, and whether it holds."""

    step: str
    what: str
    passed: bool


class Points(Record):
    """The test women's breasts as both models score them: one entry for each breast."""

    target: Sequence[int]  # 0 or 1
    then: Sequence[float]  # probability by the recorded model
    now: Sequence[float]  # by the re-made one
    threshold_then: float
    threshold_now: float


class Audit(Record):
    """The whole of an audit."""

    schema_version: Literal[2] = 2
    verdict: Verdict
    sentence: str
    quick: bool  # whether the re-run and the comparison were left out
    date: str  # of the audit, ISO 8601, UTC
    model: str
    version: int
    run: str | None  # of MLflow
    git_tag: str | None
    commit: str | None
    author: str | None  # of the commit
    commit_date: str | None
    snapshot_digest: str | None
    data_path: str | None
    data_hash: str | None
    previous_version: int | None
    settings: Sequence[Setting]  # against the previous version
    checks: Sequence[Check]
    findings: Sequence[Finding]
    standard: Standard | None  # None if the snapshot is not there
    stages: Sequence[ComparedStage]
    rescoring: Rescoring | None  # of the recorded weights; these three under equivalence only
    equivalence: Equivalence | None
    points: Points | None
    metrics: Sequence[Metric]
    environment_then: Environment | None
    environment_now: Environment
    environment_differences: Sequence[EnvironmentDifference]
    splits: Mapping[str, Mapping[str, int]]  # women and images of each


def judge_audit(
    findings: Sequence[Finding],
    stages: Sequence[ComparedStage],
    equivalence: Equivalence | None,
    quick: bool,
) -> Verdict:
    """The verdict that follows from findings and comparison.

    A contradiction counts more than a gap: what is wrong stays wrong, whatever the missing record
    would say. And "cannot be judged" counts more than "unsound": "reproduced, but unsound" would
    claim that the version was reproduced.

    Args:
        findings: of all checks.
        stages: then and now; empty if nothing was run again.
        equivalence: of the two models, where bytes may differ.
        quick: whether the re-run and the comparison were left out.
    """
    kinds = {finding.kind for finding in findings}
    if "wrong" in kinds:
        return "not reproduced"
    if "missing" in kinds:
        return "cannot be judged"
    if quick:
        return (
            "records agree, not re-run, but unsound"
            if "unsound" in kinds
            else "records agree, not re-run"
        )
    likenesses = {stage.likeness for stage in stages}
    if likenesses <= {"identical"}:
        return "reproduced, but unsound" if "unsound" in kinds else "reproduced bit for bit"
    if "different" in likenesses or equivalence is None:
        return "not reproduced"
    if equivalence.outcome == "not equivalent":
        return "not reproduced"
    if equivalence.outcome == "too small to tell":
        return "too small to tell"
    return "reproduced, but unsound" if "unsound" in kinds else "reproduced in effect"


def main() -> None:
    """Print the JSON Schema."""
    print(json.dumps(Audit.model_json_schema(), indent=2))


if __name__ == "__main__":
    main()
