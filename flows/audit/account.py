"""The account of an audit: what the steps found, made into the record and its one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.audit.findings import CheckResult, collect_findings
from flows.audit.record import (
    Audit,
    ComparedStage,
    Finding,
    Metric,
    Points,
    Setting,
    Standard,
    Verdict,
    judge_audit,
)
from flows.pipeline.graph import Stage
from flows.pipeline.lock_and_cache import Cache, read_data_out
from flows.processes.checked import Commit, validate
from flows.processes.run_git import git
from flows.snapshots.environment import Environment, EnvironmentDifference
from flows.snapshots.snapshot import Snapshot
from flows.tracking.names import MODEL, name_tag
from flows.tracking.registry import FAULTS, read_snapshot
from flows.tracking.runs import flatten
from mammo.assurance.equivalence import Equivalence, Rescoring
from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError


@dataclass(frozen=True)
class Environments:
    """What a version was made in, and the auditor's machine."""

    then: Environment | None  # None if it was not recorded
    now: Environment
    differences: Sequence[EnvironmentDifference] = ()


@dataclass(frozen=True)
class Contents:
    """What the cached outs of a version say."""

    metrics: Sequence[Metric]
    splits: Mapping[str, Mapping[str, int]]  # women and images of each


@dataclass(frozen=True)
class Rerun:
    """The result of running the pipeline again; the last three only where bytes may differ."""

    stages: Sequence[ComparedStage]
    metrics: Sequence[Metric]
    rescoring: Rescoring | None = None
    equivalence: Equivalence | None = None
    points: Points | None = None


@dataclass(frozen=True)
class Materials:
    """What the steps of an audit found, as far as it got."""

    results: Sequence[CheckResult]
    snapshot: Snapshot | None  # None if the records do not tell one
    environments: Environments
    standard: Standard | None = None
    contents: Contents | None = None
    rerun: Rerun | None = None


def compare_metrics(
    pipeline: Sequence[Stage], outs: Mapping[str, str], cache: Cache, folder: Path | None
) -> list[Metric]:
    """Every metric of every stage: the recorded one and, if `folder` has one, that of the re-run.

    Args:
        pipeline: the stages, as dvc.yaml declares them.
        outs: the recorded paths and hashes.
        cache: has the recorded outs.
        folder: where the pipeline ran again; None if it did not.
    """
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


def make_record(root: Path, version: ModelVersion, found: Materials, quick: bool) -> Audit:
    """The record, with the verdict that the findings come to.

    Args:
        root: the auditor's clone.
        version: the version that was audited.
        found: by the audit.
        quick: whether the re-run and the comparison were left out.
    """
    snapshot, number = found.snapshot, int(version.version)
    rerun = found.rerun or Rerun((), found.contents.metrics if found.contents else ())
    findings = collect_findings(found.results)
    verdict = judge_audit(findings, rerun.stages, rerun.equivalence, quick)
    previous, settings = _settings_against_previous(version, snapshot)
    commit = snapshot.commit if snapshot else version.tags.get("git_commit")
    author, date = _read_author(root, commit)
    data = read_data_out(snapshot) if snapshot else (None, version.tags.get("data_hash"))
    return Audit(
        verdict=verdict,
        sentence=_describe_verdict(number, verdict, findings, rerun),
        quick=quick,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=MODEL,
        version=number,
        run=version.run_id,
        git_tag=name_tag(number),
        commit=commit,
        author=author,
        commit_date=date,
        snapshot_digest=snapshot.digest if snapshot else version.tags.get("snapshot_digest"),
        data_path=data[0],
        data_hash=data[1],
        previous_version=previous,
        settings=settings,
        checks=[result.to_record() for result in found.results],
        findings=findings,
        standard=found.standard,
        stages=rerun.stages,
        rescoring=rerun.rescoring,
        equivalence=rerun.equivalence,
        points=rerun.points,
        metrics=rerun.metrics,
        environment_then=found.environments.then,
        environment_now=found.environments.now,
        environment_differences=found.environments.differences,
        splits=found.contents.splits if found.contents else {},
    )


def _describe_verdict(
    number: int, verdict: Verdict, findings: Sequence[Finding], rerun: Rerun
) -> str:
    """The verdict in one sentence, with the first reason where there is one."""
    outs = sum(len(stage.outs) for stage in rerun.stages)
    first = {finding.kind: finding.sentence for finding in reversed(findings)}
    subject = f"{MODEL} version {number}"
    match verdict:
        case "reproduced bit for bit":
            return (
                f"{subject} was reproduced bit for bit: all {outs} outs of {len(rerun.stages)} "
                f"stages came out as the bytes they were."
            )
        case "reproduced in effect":
            return f"{subject} was reproduced in effect, {_describe_measures(rerun.equivalence)}."
        case "reproduced, but unsound":
            return f"{subject} was reproduced, but is unsound: {first['unsound']}."
        case "records agree, not re-run":
            return f"The records of {subject} agree; it was not run again (--quick)."
        case "records agree, not re-run, but unsound":
            return (
                f"The records of {subject} agree, but it is unsound: {first['unsound']}; it was "
                f"not run again (--quick)."
            )
        case "not reproduced":
            return f"{subject} was not reproduced: {first['wrong']}."
        case "too small to tell":
            assert rerun.equivalence is not None
            return (
                f"The test set of {subject} is too small to tell whether the re-made model does "
                f"the same: {rerun.equivalence.reason}."
            )
        case "cannot be judged":
            return f"{subject} cannot be judged: {first['missing']}."


def _describe_measures(found: Equivalence | None) -> str:
    """The comparison of two models in half a sentence; the record has intervals and bounds."""
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
    """The newest older version that exists, and the settings that differ from it."""
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
        texts = read_snapshot(previous).files["params.yaml"], snapshot.files["params.yaml"]
        before, this = (flatten(yaml.safe_load(text)) for text in texts)
    except (*FAULTS, UserError, KeyError, ValueError, yaml.YAMLError) as error:
        # What is wrong with that version does not concern this audit.
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


def _read_author(root: Path, commit: str | None) -> tuple[str | None, str | None]:
    if commit is None:
        return None, None
    try:
        known = validate(Commit, commit, "the commit")  # a tag of the version's may have named it
        author, date = git(root, "show", "-s", "--format=%an%n%cI", known).splitlines()
    except (UserError, ValueError):
        return None, None
    return author, date
