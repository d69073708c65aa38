"""The account of an audit: what was seen, put together into the record and its one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.audit.findings import Evidence
from flows.audit.record import (
    Audit,
    ComparedStage,
    Metric,
    Points,
    Setting,
    Standard,
    Verdict,
    verdict_of,
)
from flows.pipeline.graph import Stage
from flows.pipeline.lock_and_cache import Cache, data_out
from flows.processes.checked import Commit, checked
from flows.processes.run_git import git
from flows.snapshots.environment import Environment, EnvironmentDifference
from flows.snapshots.snapshot import Snapshot
from flows.tracking.register import git_tag
from flows.tracking.registry import MODEL, snapshot_of
from flows.tracking.runs import flatten
from mammo.assurance.equivalence import Equivalence, Rescoring
from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError


@dataclass
class Materials:
    """What the steps hand on, as far as the audit got."""

    now: Environment
    then: Environment | None = None
    differences: Sequence[EnvironmentDifference] = ()
    snapshot: Snapshot | None = None
    standard: Standard | None = None
    stages: Sequence[ComparedStage] = ()
    rescoring: Rescoring | None = None
    equivalence: Equivalence | None = None
    points: Points | None = None
    metrics: Sequence[Metric] = ()
    splits: Mapping[str, Mapping[str, int]] | None = None


def compare_metrics(
    pipeline: Sequence[Stage], outs: Mapping[str, str], cache: Cache, folder: Path | None
) -> list[Metric]:
    """Every metric of every stage, then and, if the stages were run again in `folder`, now."""
    found = []
    for stage in pipeline:
        for path in stage.metrics:
            old = flatten(read_json(cache.path(outs[str(path)])))
            made = folder is not None and (folder / path).exists()
            new = flatten(read_json(folder / path)) if folder is not None and made else {}
            for name, value in old.items():
                if name.endswith((".low", ".high")) or not isinstance(value, int | float):
                    continue
                interval = name.removesuffix(".value")
                found.append(
                    Metric(
                        stage=stage.name,
                        name=interval,
                        then=value,
                        now=new.get(name),
                        low=old.get(f"{interval}.low"),
                        high=old.get(f"{interval}.high"),
                    )
                )
    return found


def put_together(
    root: Path, version: ModelVersion, seen: Evidence, got: Materials, quick: bool
) -> Audit:
    """The record, with the verdict that the findings come to."""
    snapshot, number = got.snapshot, int(version.version)
    verdict = verdict_of(seen.findings, got.stages, got.equivalence, quick)
    previous, settings = _settings_against_previous(version, snapshot)
    commit = snapshot.commit if snapshot else version.tags.get("git_commit")
    author, date = _who_and_when(root, commit)
    data = data_out(snapshot) if snapshot else (None, version.tags.get("data_hash"))
    return Audit(
        verdict=verdict,
        sentence=_sentence(number, verdict, seen, got),
        quick=quick,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=MODEL,
        version=number,
        run=version.run_id,
        git_tag=git_tag(number),
        commit=commit,
        author=author,
        commit_date=date,
        snapshot_digest=snapshot.digest if snapshot else version.tags.get("snapshot_digest"),
        data_path=data[0],
        data_hash=data[1],
        previous_version=previous,
        settings=settings,
        checks=seen.checks,
        findings=seen.findings,
        standard=got.standard,
        stages=got.stages,
        rescoring=got.rescoring,
        equivalence=got.equivalence,
        points=got.points,
        metrics=got.metrics,
        environment_then=got.then,
        environment_now=got.now,
        environment_differences=got.differences,
        splits=got.splits or {},
    )


def _sentence(number: int, verdict: Verdict, seen: Evidence, got: Materials) -> str:
    """The verdict in one sentence, with the first reason where there is one."""
    outs = sum(len(stage.outs) for stage in got.stages)
    first = {finding.kind: finding.sentence for finding in reversed(seen.findings)}
    subject = f"{MODEL} version {number}"
    match verdict:
        case "reproduced bit for bit":
            return (
                f"{subject} was reproduced bit for bit: all {outs} outs of {len(got.stages)} "
                f"stages came out as the bytes they were."
            )
        case "reproduced in effect":
            return f"{subject} was reproduced in effect, {_numbers(got.equivalence)}."
        case "reproduced, but unsound":
            return f"{subject} was reproduced, but is unsound: {first['unsound']}."
        case "records agree, not re-run":
            return f"The records of {subject} agree; it was not run again (--quick)."
        case "records agree, not re-run, but unsound":
            return (
                f"The records of {subject} agree, but it is unsound: {first['unsound']}; not run "
                f"again."
            )
        case "not reproduced":
            return f"{subject} was not reproduced: {first['wrong']}."
        case "too small to tell":
            assert got.equivalence is not None
            return (
                f"The test set of {subject} is too small to tell whether the re-made model does "
                f"the same: {got.equivalence.reason}."
            )
        case "cannot be judged":
            return f"{subject} cannot be judged: {first['missing']}."


def _numbers(found: Equivalence | None) -> str:
    """The comparison of two models in half a sentence; intervals and bounds are in the record."""
    assert found is not None
    numbers = ", ".join(
        f"{measure.name} {measure.value:.3f}"
        if measure.then is None
        else f"{measure.name} {measure.now:.3f} (was {measure.then:.3f})"
        for measure in found.measures
    )
    return f"for {found.women} test women, {found.positives} of them positive: {numbers}"


def _settings_against_previous(
    version: ModelVersion, snapshot: Snapshot | None
) -> tuple[int | None, list[Setting]]:
    """The newest older version there is, and the settings it had otherwise."""
    client = MlflowClient()
    older = [
        v
        for v in client.search_model_versions(f"name = '{MODEL}'")
        if int(v.version) < int(version.version)
    ]
    if not older or snapshot is None:
        return None, []
    previous = max(older, key=lambda v: int(v.version))
    try:
        texts = snapshot_of(previous).files["params.yaml"], snapshot.files["params.yaml"]
        before, this = (flatten(yaml.safe_load(text)) for text in texts)
    except Exception as error:  # whatever is wrong with that version is not this audit's matter
        return int(previous.version), [
            Setting(key="(its settings cannot be read)", previous=str(error), this=None)
        ]
    return int(previous.version), [
        Setting(
            key=key,
            previous=str(before[key]) if key in before else None,
            this=str(this[key]) if key in this else None,
        )
        for key in sorted(before.keys() | this.keys())
        if before.get(key) != this.get(key)
    ]


def _who_and_when(root: Path, commit: str | None) -> tuple[str | None, str | None]:
    if commit is None:
        return None, None
    try:
        known = checked(Commit, commit, "the commit")  # a tag of the version's may have named it
        author, date = git(root, "show", "-s", "--format=%an%n%cI", known).splitlines()
    except (UserError, ValueError):
        return None, None
    return author, date
