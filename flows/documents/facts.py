"""The facts of a version that its documents are made of, each with the record that it comes from.

They come from the registry, the snapshot, DVC's cache, the gate, audits and the bill of materials,
and none from a clock: the same records give the same facts. What could name a woman, a person or a
machine is left out: who decided and why, what a verdict's sentence says, names of files of data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from flows.audit.history import list_audits
from flows.documents.change_plan import ChangePlan, read_change_plan
from flows.documents.passages import FILE as PASSAGES_FILE
from flows.documents.passages import read_passages
from flows.documents.pictures import Bin, draw_pictures
from flows.evidence.bom import BOM, measure_subgroups, read_locked_packages_of
from flows.evidence.ledger import name_file
from flows.evidence.statements import hash_text, replace_nan
from flows.evidence.verify import DOCUMENTS, describe, hash_bytes, read_lines, split_lines
from flows.pipeline.lock_and_cache import Cache, LockedStage, open_cache, read_data_out, read_lock
from flows.processes.checked import parse_record
from flows.snapshots.environment import Environment, read_locked_packages
from flows.snapshots.snapshot import DATA_FILE, LOCK_FILE, PARAMS_FILE, Snapshot
from flows.tracking import aliases
from flows.tracking.names import MODEL, name_tag
from flows.tracking.registry import (
    ENVIRONMENT_ARTIFACT,
    SNAPSHOT_ARTIFACT,
    find_snapshot,
    list_versions,
    read_artifact,
    read_environment,
    read_run_id,
)
from flows.tracking.runs import flatten, select_numbers
from mammo.assurance.plan import PLAN_FILE
from mammo.base.errors import UserError

IN_RUN, IN_CACHE, IN_GIT = "the version's run in MLflow", "DVC's cache", "git"
"""What sources are kept in."""


@dataclass(frozen=True)
class Source:
    """A record that figures come from."""

    name: str
    digest: str | None  # the algorithm and its hex; None if the record has no digest
    kept_in: str


@dataclass(frozen=True)
class ScoreWithInterval:
    """A score with its interval, which may be missing."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """The auROC in a group of test women."""

    name: str  # such as "age 50 to 59: 20 breasts, 5 positive"
    auroc: ScoreWithInterval


@dataclass(frozen=True)
class Condition:
    """A condition of the gate with its numbers; see `mammo.assurance.promotion_rule.Reason`."""

    check: str
    group: str | None
    against: int | None  # the plan's reference, if not the champion
    champion: float | None
    challenger: float
    bound: float | None
    limit: float
    passed: bool
    breasts: int | None
    positives: int | None
    images: int | None = None  # that were counted, where it is images and not breasts


@dataclass(frozen=True)
class Gate:
    """The last verdict of the gate on the version."""

    date: str
    verdict: str
    against: str  # the champion's version; or "none"
    conditions: tuple[Condition, ...]
    look: Mapping[str, Any]  # which one it was at these test women; empty if not recorded


@dataclass(frozen=True)
class AuditVerdict:
    """An audit's verdict."""

    date: str
    verdict: str
    standard: str
    environment: str
    report: str  # SHA-256


@dataclass(frozen=True)
class Package:
    """A package of the version's requirements.lock."""

    name: str
    version: str
    licence: str | None


@dataclass(frozen=True)
class Differences:
    """What differs from the version before."""

    version: int  # the one before
    settings: tuple[tuple[str, str, str], ...]  # name, then, now
    data: tuple[str, str] | None  # hashes, if they differ
    commits: tuple[str, str] | None
    code: tuple[str, ...]  # that stages read, and whose bytes differ
    plan: bool  # whether plan.yaml differs


@dataclass(frozen=True)
class EarlierVersion:
    """A version up to this one, as the registry has it."""

    version: int
    registered: str
    snapshot: str
    verdict: str | None  # of the gate


@dataclass(frozen=True)
class Facts:
    """All that is recorded of a version and may be told."""

    model: str
    version: int
    registered: str  # date, UTC
    git_tag: str
    snapshot: str | None  # digest
    commit: str | None
    settings: Mapping[str, Any]  # of params.yaml
    data: tuple[str, str] | None  # folder and hash
    stages: tuple[LockedStage, ...]
    numbers: Mapping[str, float]  # metrics of every stage, by "stage/name.name"
    groups: tuple[Group, ...]
    calibration: tuple[Bin, ...]
    pictures: Mapping[str, str]  # SVG, by name
    gate: Gate | None
    moves: tuple[tuple[str, str], ...]  # date, and what became of the version
    audits: tuple[AuditVerdict, ...]
    lines: tuple[tuple[int, str, str, str], ...]  # of the ledger: number, date, kind, digest
    environment: Environment | None
    packages: tuple[Package, ...]
    weights: tuple[tuple[str, str], ...]  # files of the networks, SHA-256
    plan: ChangePlan
    changes: Differences | None
    earlier: tuple[EarlierVersion, ...]
    passages: Mapping[str, str]
    sources: Mapping[str, Source]
    missing: tuple[str, ...]  # a phrase for each record that is not there

    def score(
        self, name: str, part: str = "test", kind: str = "breast"
    ) -> ScoreWithInterval | None:
        """A score of evaluate, such as `auroc`; None if it is not recorded."""
        begin = f"evaluate/{part}.{kind}.{name}"
        value = self.numbers.get(f"{begin}.value")
        if value is None:
            return None
        return ScoreWithInterval(
            value, self.numbers.get(f"{begin}.low"), self.numbers.get(f"{begin}.high")
        )

    def setting(self, name: str) -> Any:
        """A setting by its dotted name; None if there is none."""
        found: Any = self.settings
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def gather(root: Path, version: ModelVersion) -> Facts:
    """Gather the facts of a version; what is not recorded is named in `missing`.

    Args:
        root: a clone; where it lacks outs of the version, there are fewer facts.
        version: registered.

    Raises:
        UserError: if a record cannot be read any more, or the provider's passages are wrong.
    """
    number, run = int(version.version), read_run_id(version)
    notes = _Notes()
    snapshot, cache = find_snapshot(version), open_cache(root)
    settings, stages = _read_settings(snapshot, notes), _read_stages(snapshot, notes)
    numbers = _read_numbers(stages, cache, run, notes)
    pictures, bins = _read_pictures(stages, cache, numbers, notes)
    bom, environment = _read_bom(run, notes), _read_environment(version, run, notes)
    versions = [one for one in list_versions() if int(one.version) <= number]
    return Facts(
        model=MODEL,
        version=number,
        registered=_write_date(version),
        git_tag=name_tag(number),
        snapshot=snapshot.digest if snapshot is not None else None,
        commit=snapshot.commit if snapshot is not None else None,
        settings=settings,
        data=_read_data(snapshot, notes),
        stages=tuple(stages),
        numbers=numbers,
        groups=tuple(_read_groups(bom, snapshot, cache, notes)),
        calibration=bins,
        pictures=pictures,
        gate=_read_gate(version, run, notes),
        moves=tuple(_read_moves(number, notes)),
        audits=tuple(_read_audits(version, notes)),
        lines=tuple(_read_lines(run, number, notes)),
        environment=environment,
        packages=tuple(_read_packages(bom, root, snapshot, notes)),
        weights=tuple(_read_weights(bom)),
        plan=_read_plan(snapshot, notes),
        changes=_compare_with_earlier(snapshot, versions, number),
        earlier=tuple(_describe_version(one) for one in reversed(versions)),
        passages=_read_passages(root, notes),
        sources=notes.sources,
        missing=tuple(notes.missing),
    )


@dataclass(frozen=True)
class _Notes:
    """What is noted while facts are gathered."""

    sources: dict[str, Source] = field(default_factory=dict)  # by the keys that templates cite
    missing: list[str] = field(default_factory=list)  # a phrase for each record that is not there


def _describe_version(version: ModelVersion) -> EarlierVersion:
    digest, verdict = version.tags.get("snapshot_digest", ""), version.tags.get("gate_verdict")
    return EarlierVersion(int(version.version), _write_date(version), digest, verdict)


def _write_date(version: ModelVersion) -> str:
    seconds = int(version.creation_timestamp) // 1000
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _cite_text(name: str, text: str) -> Source:
    return Source(name, f"sha256:{hash_text(text)}", IN_RUN)


def _cite_snapshot(name: str, snapshot: Snapshot) -> Source:
    return Source(
        f"snapshot/{name}", f"sha256:{hash_text(snapshot.files[name])}", f"{IN_RUN}, and {IN_GIT}"
    )


def _read_settings(snapshot: Snapshot | None, notes: _Notes) -> dict[str, Any]:
    if snapshot is None:
        notes.missing.append(f"{SNAPSHOT_ARTIFACT}, which names settings, data and code")
        return {}
    digest = f"sha256:{snapshot.digest}"
    notes.sources["snapshot"] = Source(SNAPSHOT_ARTIFACT, digest, f"{IN_RUN}, and {IN_GIT}")
    notes.sources["code"] = Source("the code", f"git:{snapshot.commit}", IN_GIT)
    if PARAMS_FILE not in snapshot.files:
        return {}
    notes.sources["settings"] = _cite_snapshot("params.yaml", snapshot)
    return dict(yaml.safe_load(snapshot.files[PARAMS_FILE]) or {})


def _read_stages(snapshot: Snapshot | None, notes: _Notes) -> list[LockedStage]:
    if snapshot is None or LOCK_FILE not in snapshot.files:
        return []
    notes.sources["stages"] = _cite_snapshot("dvc.lock", snapshot)
    return read_lock(snapshot)


def _read_data(snapshot: Snapshot | None, notes: _Notes) -> tuple[str, str] | None:
    if snapshot is None or DATA_FILE not in snapshot.files:
        return None
    notes.sources["data"] = _cite_snapshot("data.dvc", snapshot)
    return read_data_out(snapshot)


def _read_numbers(
    stages: Sequence[LockedStage],
    cache: Cache,
    run: str,
    notes: _Notes,
) -> dict[str, float]:
    """The metrics of each stage: of the out that dvc.lock names, or else as MLflow has them."""
    logged = MlflowClient().get_run(run).data.metrics
    found: dict[str, float] = {}
    for stage in stages:
        for path, md5 in stage.outs.items():
            if Path(path).name != "metrics.json":
                continue
            if cache.state(md5) == "good":
                content = json.loads(cache.path(md5).read_text(encoding="utf-8"))
                numbers = select_numbers(flatten(content))
                source = Source(path, f"md5:{md5}", IN_CACHE)
            else:
                begin = f"{stage.name}/"
                numbers = {
                    name.removeprefix(begin): value
                    for name, value in logged.items()
                    if name.startswith(begin)
                }
                source = Source(f"metrics of the stage {stage.name}", None, IN_RUN)
            if numbers:
                notes.sources[f"{stage.name} metrics"] = source
                found |= {f"{stage.name}/{name}": value for name, value in numbers.items()}
    if not any(name.startswith("evaluate/") for name in found):
        notes.missing.append("the metrics of the stage evaluate: results of internal testing")
    if not any(name.startswith("split/") for name in found):
        notes.missing.append("the metrics of the stage split: how many women there are")
    return found


def _read_pictures(
    stages: Sequence[LockedStage], cache: Cache, numbers: Mapping[str, float], notes: _Notes
) -> tuple[Mapping[str, str], tuple[Bin, ...]]:
    """The curves as SVG by name, and the bins of the calibration."""
    pictures, bins = draw_pictures(stages, cache, numbers)
    for key, (path, md5) in pictures.sources.items():
        notes.sources[key] = Source(path, f"md5:{md5}", IN_CACHE)
    if not pictures.drawings:
        notes.missing.append("the tables of the curves (this clone's DVC cache does not hold them)")
    return pictures.drawings, bins


def _read_environment(version: ModelVersion, run: str, notes: _Notes) -> Environment | None:
    environment, text = read_environment(version), read_artifact(run, ENVIRONMENT_ARTIFACT)
    if environment is None or text is None:
        notes.missing.append(f"{ENVIRONMENT_ARTIFACT}: the machine and its software")
    else:
        notes.sources["environment"] = _cite_text(ENVIRONMENT_ARTIFACT, text)
    return environment


def _read_passages(root: Path, notes: _Notes) -> dict[str, str]:
    passages = read_passages(root)
    if passages:
        digest = hash_bytes((root / PASSAGES_FILE).read_bytes())
        notes.sources["provider"] = Source(str(PASSAGES_FILE), f"sha256:{digest}", "the clone")
    return passages


def _read_plan(snapshot: Snapshot | None, notes: _Notes) -> ChangePlan:
    plan = read_change_plan(snapshot)
    if plan.source is not None and snapshot is not None:
        notes.sources["plan"] = _cite_snapshot(plan.source, snapshot)
    return plan


def _read_bom(run: str, notes: _Notes) -> dict[str, Any]:
    text = read_artifact(run, BOM)
    if text is None:
        notes.missing.append(f"{BOM}: the bill of materials")
        return {}
    notes.sources["bom"] = _cite_text(BOM, text)
    return _parse(text, BOM)


def _parse(text: str, name: str) -> dict[str, Any]:
    """A record as JSON.

    Raises:
        UserError: if it is none.
    """
    what = f"{name} of the version in MLflow is no JSON of names and values"
    return parse_record(dict[str, Any], text, what, "restore it")


def _read_groups(
    bom: Mapping[str, Any], snapshot: Snapshot | None, cache: Cache, notes: _Notes
) -> list[Group]:
    """The auROC by group: of the bill of materials, or measured, where there is none."""
    if bom:
        card = bom["metadata"]["component"]["modelCard"]
        metrics = card["quantitativeAnalysis"]["performanceMetrics"]
        metrics = [one for one in metrics if not one["slice"].startswith("test women, by ")]
    else:
        try:
            metrics = measure_subgroups(snapshot, cache) if snapshot is not None else []
        except (UserError, ValidationError):
            metrics = []  # settings of another time
    if not metrics:
        notes.missing.append("scores by group of women")
    return [
        Group(
            one["slice"],
            ScoreWithInterval(
                float(one["value"]),
                float(one["confidenceInterval"]["lowerBound"]),
                float(one["confidenceInterval"]["upperBound"]),
            ),
        )
        for one in metrics
    ]


def _read_packages(
    bom: Mapping[str, Any],
    root: Path,
    snapshot: Snapshot | None,
    notes: _Notes,
) -> list[Package]:
    parts = [one for one in bom.get("components", []) if one["type"] == "library"]
    if parts:
        notes.sources["packages"] = notes.sources["bom"]
        return [
            Package(one["name"], one["version"], _name_licence(one.get("licenses", [])))
            for one in parts
        ]
    try:
        text = read_locked_packages_of(root, snapshot) if snapshot is not None else None
    except UserError:
        text = None  # this clone does not have the commit
    if text is None:
        notes.missing.append("requirements.lock: the packages")
        return []
    notes.sources["packages"] = Source("requirements.lock", f"sha256:{hash_text(text)}", IN_GIT)
    return [Package(name, version, None) for name, version in read_locked_packages(text).items()]


def _name_licence(licences: Sequence[Mapping[str, Any]]) -> str | None:
    return licences[0]["license"]["name"] if licences else None


def _read_weights(bom: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not bom:
        return []
    parts = bom["metadata"]["component"].get("components", [])
    return [(one["name"], one["hashes"][0]["content"]) for one in parts]


def _read_gate(version: ModelVersion, run: str, notes: _Notes) -> Gate | None:
    """The verdict by the version's tags, and the table of its conditions, if there is one."""
    tags = version.tags
    if "gate_verdict" not in tags:
        notes.missing.append("a verdict of the gate")
        return None
    date = tags.get("gate_date", "")
    notes.sources["verdict"] = Source("the tags gate_* of the version", None, "the registry")
    conditions: list[Condition] = []
    folder = f"gates/{date.partition('+')[0].replace(':', '')}"
    if (text := read_artifact(run, f"{folder}/decision.json")) is not None:
        notes.sources["conditions"] = _cite_text(f"{folder}/decision.json", text)
        table = _parse(text, f"{folder}/decision.json")
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        fields = Condition.__dataclass_fields__
        conditions = [
            Condition(**replace_nan({name: row.get(name) for name in fields})) for row in rows
        ]
    look = _parse(tags.get("gate_look", "{}"), "the tag gate_look")
    return Gate(date, tags["gate_verdict"], tags.get("gate_against", ""), tuple(conditions), look)


def _read_moves(number: int, notes: _Notes) -> list[tuple[str, str]]:
    """What became of the version, without who decided and why: those are persons' words."""
    found = []
    for move in aliases.read_history():
        by = "automatically" if move.who == aliases.AUTOMATIC else "by a person"
        if move.version == number and move.kind == "taken away":
            found.append((move.date, f"no longer {move.alias}"))
        elif move.version == number:
            back = ", after a rollback" if move.kind == "rolled back" else ""
            found.append((move.date, f"became {move.alias}{back}, {by}"))
        elif move.before == number and move.alias == "champion":
            rolled = move.kind == "rolled back"
            what = f"rolled back to version {move.version}" if rolled else "gave way to version"
            found.append((move.date, f"{what}{'' if rolled else f' {move.version}'}, {by}"))
    if found:
        notes.sources["moves"] = Source("the history of the aliases", None, "the registry")
    return found


def _read_audits(version: ModelVersion, notes: _Notes) -> list[AuditVerdict]:
    found = [
        AuditVerdict(one.date, one.verdict, one.standard, one.environment, one.report_digest)
        for one in list_audits(version)
    ]
    if found:
        notes.sources["audits"] = Source(
            "the audits' audit.json, each with its own digest", None, IN_RUN
        )
    return found


def _read_lines(run: str, number: int, notes: _Notes) -> list[tuple[int, str, str, str]]:
    """The signed lines about the version, but for those about its documents."""
    text = read_artifact(run, name_file(number))
    lines, _ = read_lines(split_lines(text or ""))
    kept = [line for line in lines if line.kind != DOCUMENTS]
    if kept:
        kept_in = f"{IN_RUN}, and {IN_GIT}"
        notes.sources["ledger"] = Source(name_file(number), None, kept_in)
    return [(line.number, line.date, describe(line), line.digest) for line in kept]


def _compare_with_earlier(
    snapshot: Snapshot | None, versions: Sequence[ModelVersion], number: int
) -> Differences | None:
    """What differs from the last version before that has a snapshot."""
    for one in versions:
        if int(one.version) == number or snapshot is None:
            continue
        try:
            then = find_snapshot(one)
        except UserError:
            continue  # its records are damaged; an audit of it says how
        if then is not None:
            return _compare(int(one.version), then, snapshot)
    return None


def _compare(version: int, then: Snapshot, now: Snapshot) -> Differences:
    before, after = (
        flatten(yaml.safe_load(one.files.get(PARAMS_FILE, "")) or {}) for one in (then, now)
    )
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    data = [read_data_out(one)[1] if DATA_FILE in one.files else "" for one in (then, now)]
    code = [_hash_code(one) for one in (then, now)]
    return Differences(
        version=version,
        settings=tuple(
            (name, str(before.get(name, "not there")), str(after.get(name, "not there")))
            for name in names
        ),
        data=(data[0], data[1]) if data[0] != data[1] else None,
        commits=(then.commit, now.commit) if then.commit != now.commit else None,
        code=tuple(
            path for path in sorted({*code[0], *code[1]}) if code[0].get(path) != code[1].get(path)
        ),
        plan=then.files.get(PLAN_FILE) != now.files.get(PLAN_FILE),
    )


def _hash_code(snapshot: Snapshot) -> dict[str, str]:
    """The code that stages read: paths and DVC's hashes."""
    stages = read_lock(snapshot) if LOCK_FILE in snapshot.files else []
    return {
        path: md5
        for stage in stages
        for path, md5 in stage.deps.items()
        if path.split("/")[0] in ("mammo", "stages")
    }
