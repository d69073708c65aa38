"""What an audit found, as typed objects: the JSON report, and what the page is made from.

python -m flows.audit_record > flows/audit.schema.json    # after a change of these
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flows.environment import Environment, EnvironmentDifference
from mammo.comparison import Likeness

Verdict = Literal[
    "reproduced bit for bit",
    "reproduced within tolerance",
    "reproduced, but unsound",
    "not reproduced",
    "cannot be judged",
    "records agree, not re-run",  # --quick: neither good nor bad has been shown by doing it again
    "records agree, not re-run, but unsound",
]

EXIT_STATUS: Mapping[Verdict, int] = {
    "reproduced bit for bit": 0,
    "reproduced within tolerance": 0,
    "records agree, not re-run": 0,
    "reproduced, but unsound": 1,
    "records agree, not re-run, but unsound": 1,
    "not reproduced": 1,
    "cannot be judged": 2,
}


class Record(BaseModel):
    """Immutable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """One thing that is not as it should be.

    `missing` is what one would need to judge, `wrong` a contradiction, `unsound` a model that could
    be reproduced and should not be trusted; a `note` changes no verdict.
    """

    step: Literal["provenance", "integrity", "reproduction", "comparison", "leakage"]
    kind: Literal["missing", "wrong", "unsound", "note"]
    sentence: str


class ComparedOut(Record):
    """An out of a stage, then and now."""

    path: str
    hash_then: str
    hash_now: str | None  # None if it was not made again
    likeness: Likeness | None
    details: Sequence[str]  # of the files that differ, the least alike first


class ComparedStage(Record):
    """A stage, then and now."""

    stage: str
    likeness: Likeness | None  # the least of its outs; None without a re-run
    deterministic: bool | None  # None if it gave no reason to run it twice
    outs: Sequence[ComparedOut]


class Setting(Record):
    """A setting that the previous version had otherwise."""

    key: str
    previous: str | None
    this: str | None


class Metric(Record):
    """A metric then and now; low and high are the interval of then."""

    stage: str
    name: str
    then: float
    now: float | None
    low: float | None
    high: float | None


class Check(Record):
    """One thing looked at, and what was seen."""

    step: str
    what: str
    passed: bool


class Audit(Record):
    """The whole of an audit."""

    schema_version: Literal[1] = 1
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
    stages: Sequence[ComparedStage]
    metrics: Sequence[Metric]
    environment_then: Environment | None
    environment_now: Environment
    environment_differences: Sequence[EnvironmentDifference]
    splits: Mapping[str, Mapping[str, int]]  # women and images of each


def judge(findings: Sequence[Finding], stages: Sequence[ComparedStage], quick: bool) -> Verdict:
    """The verdict that findings and comparison come to.

    A record that contradicts itself outweighs one that has gaps: what is wrong stays wrong,
    whatever the missing part would say.
    """
    kinds = {finding.kind for finding in findings}
    if "wrong" in kinds or any(stage.likeness == "different" for stage in stages):
        return "not reproduced"
    if "missing" in kinds:
        return "cannot be judged"
    if "unsound" in kinds:
        return "records agree, not re-run, but unsound" if quick else "reproduced, but unsound"
    if quick:
        return "records agree, not re-run"
    if all(stage.likeness == "identical" for stage in stages):
        return "reproduced bit for bit"
    return "reproduced within tolerance"


def main() -> None:
    """Print the JSON Schema."""
    print(json.dumps(Audit.model_json_schema(), indent=2))


if __name__ == "__main__":
    main()
