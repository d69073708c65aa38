"""The retraining flow: bring the pipeline up to date, log it to MLflow, register the model.

    mammoflow retrain
    mammoflow retrain --pool gpu    # stages of dvc.yaml with `meta: {pool: gpu}` go to a worker

It runs with Prefect's temporary server, or against PREFECT_API_URL where that is set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from prefect import State, flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed, Failed

from flows.documents.keep import has_documents, try_to_keep_documents
from flows.documents.passages import read_passages
from flows.evidence.ledger import publish_ledger
from flows.evidence.signing import describe_materials, sign_plan, sign_version
from flows.notify import notify, notify_failure
from flows.pipeline.ensure_data import ensure_data
from flows.pipeline.first_weights import ensure_weights
from flows.pipeline.graph import (
    Stage,
    StageOutcome,
    is_only_missing,
    read_pipeline,
    read_status,
    restore_outs,
)
from flows.processes.run_git import read_file_at
from flows.promotion.flow import Promotion, needs_gate, run_gate
from flows.publishing.publish import Publication, describe_publication, publish, publish_pending
from flows.remote.remote_stage import check_pools
from flows.retraining import attempts
from flows.retraining.recovery import name_workspace, one_at_a_time, repair_dvc, repair_registry
from flows.retraining.run_stages import RefusedError, run_pipeline
from flows.servers.deployments import REFUSED
from flows.snapshots.snapshot import (
    DATA_FILE,
    LOCK_FILE,
    PARAMS_FILE,
    Snapshot,
    capture,
    read_commit,
)
from flows.tracking import registry, runs
from flows.tracking.arithmetic import describe_origin
from flows.tracking.names import MODEL, name_tag
from flows.tracking.register import check_next_tag, register
from mammo.assurance.plan import PLAN_FILE, Plan, load_plan
from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import load_params


@dataclass(frozen=True)
class Summary:
    """What a retrain did."""

    outcomes: tuple[StageOutcome, ...]
    metrics: Mapping[str, Any]  # of every stage that declares metrics, by the stage's name
    version: int
    alias: str | None  # None if nothing was registered
    run: str  # id of the MLflow run
    registered: bool = True
    gate: Promotion | None = None  # None if the version had been at the gate before
    publications: tuple[Publication, ...] = ()  # this version's first
    signed: bool = False  # whether the version's provenance was signed now


@dataclass(frozen=True)
class _Job:
    """What a retrain works on, after its checks and repairs."""

    root: Path  # the project
    plan: Plan
    experiment: str  # its id in MLflow
    before: Snapshot  # as the folder was before any stage ran
    trigger: str  # digest of the commit's own snapshot; empty if settings or data are not its own
    stages: list[Stage]
    pools: tuple[str, ...]  # whose stages run through a worker


@flow(
    name="retrain",
    flow_run_name=attempts.name_current_run,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
@one_at_a_time
def retrain(
    force: bool = False, pools: tuple[str, ...] = (), commit: str | None = None
) -> Summary | State[Any]:
    """Retrain in the current folder and register the model that comes of it.

    Args:
        force: go through the stages and register a version even if nothing has changed.
        pools: run stages that dvc.yaml wants in these pools through their workers.
        commit: do nothing unless the clone is at this commit; a worker takes its clone there first.

    Returns:
        The summary; or, where the user can mend what is wrong, a failed state that says it.
    """
    root = Path.cwd()
    try:
        plan = _load_plan(root)
        experiment = _prepare_folder(root)
        before = capture(root)
        if commit is not None and before.commit != commit:
            return Completed(message=f"the clone is past {commit} already, at {before.commit}")
        job = _prepare_job(root, plan, experiment, before, pools)
        latest = registry.find_latest_version()
        if latest is not None and not force and _is_unchanged(root, before, latest):
            return _finish_earlier_version(job, latest)
        return _publish_and_judge(job, _make_version(job))
    except RefusedError as error:
        return Failed(name=REFUSED, message=str(error))
    except registry.EXPECTED as error:
        said = registry.describe_error(error)
        if isinstance(error, registry.FAULTS):
            said += ": every stage that has ended is kept"
        return Failed(message=said)


def _prepare_folder(root: Path) -> str:
    """Open the registry, and bring the folder into the state that a retrain needs.

    Returns:
        The id of the experiment in MLflow.

    Raises:
        UserError, CommandError: if anything is wrong that the user can mend.
    """
    say = get_run_logger().info
    read_passages(root)  # what is wrong with them is said before hours of work
    experiment = registry.open_store(root)
    check_next_tag(root)
    repair_dvc(root, say)
    ensure_data(root, say)
    ensure_weights(root, say)
    return experiment


def _prepare_job(
    root: Path, plan: Plan, experiment: str, before: Snapshot, pools: tuple[str, ...]
) -> _Job:
    """Read the pipeline, tag the flow run with its snapshot, and repair the registry.

    Raises:
        RefusedError: if dvc.yaml is wrong.
        UserError: if a pool has no worker or cannot be used.
    """
    committed = read_commit(root, before.commit)
    trigger = committed.digest if _has_inputs_of(before, committed) else ""
    if trigger:
        attempts.tag_current_run(trigger)
    try:
        stages = read_pipeline(root)
    except UserError as error:
        raise RefusedError(str(error)) from None
    check_pools(root, stages, pools)
    repair_registry(root, experiment, get_run_logger().info)
    return _Job(root, plan, experiment, before, trigger, stages, pools)


def _finish_earlier_version(job: _Job, latest: ModelVersion) -> Summary:
    """Nothing is to be retrained: do what an earlier retrain left undone.

    The latest version goes to the gate if it still has to, and versions that are not yet published
    are published.
    """
    say, version = get_run_logger().info, int(latest.version)
    say(f"Nothing changed since {MODEL} version {version}.")
    gate = run_gate(job.root, latest, job.plan) if needs_gate(latest) else None
    if gate is not None or not has_documents(latest):
        _write_documents(job.root, version)
    return Summary(
        outcomes=(),
        metrics=_read_metrics(job),
        version=version,
        alias=None,
        run=registry.read_run_id(latest),
        registered=False,
        gate=gate,
        publications=tuple(publish_pending(job.root, say)),
    )


def _make_version(job: _Job) -> Summary:
    """Run the stages in a run of MLflow, and register the model.

    Raises:
        RefusedError, CommandError: if stages fail, as `run_pipeline` says.
        UserError: if the commit changed meanwhile, or the version cannot be registered.
    """
    root, before = job.root, job.before
    sign_plan(root, job.plan)  # before a model is looked at, so before there is one
    name = attempts.name_run(before.commit)
    # A temporary server has no pages: Prefect would give an address that begins with "None".
    flow_page = flow_run.ui_url if PREFECT_UI_URL.value() else flow_run.id
    tags = {"prefect_flow_run": str(flow_page)}
    run = runs.start_retrain(job.experiment, before, name_workspace(root), job.trigger, name, tags)
    with runs.end_afterwards(run):
        if (page := runs.find_page(job.experiment, run)) is not None:
            create_link_artifact(page, "MLflow run", key="mlflow", description=name)
        runs.log_params(run, before)
        outcomes = run_pipeline(job.stages, root, job.experiment, run, job.pools, job.plan)
        after = capture(root)
        if after.commit != before.commit:
            raise UserError("the commit changed during the run: run `mammoflow retrain` again")
        environment = describe_origin(root, after, outcomes, get_run_logger().warning)
        runs.log_snapshot(root, run, after, environment)
        runs.log_pages(root, run, job.stages)
        version, alias = register(root, after, run)
    return Summary(tuple(outcomes), _read_metrics(job), version, alias, run)


def _publish_and_judge(job: _Job, made: Summary) -> Summary:
    """Sign and publish a new version, send its notification, and let the gate judge it."""
    say = get_run_logger().info
    version = registry.get_version(made.version)
    describe_materials(job.root, version)
    signed = sign_version(job.root, version)
    publications = [publish(job.root, made.version, say)]
    if publications[0].complete:
        publications += publish_pending(job.root, say)
    notify(
        f"{MODEL} version {made.version}: registered as {made.alias}",
        f"MLflow run {made.run}\n{describe_publication(publications[0])}",
    )
    gate = run_gate(job.root, registry.get_version(made.version), job.plan)
    _write_documents(job.root, made.version)
    summary = replace(
        made,
        alias=registry.CHAMPION if gate.outcome == "promoted" else made.alias,
        gate=gate,
        publications=tuple(publications),
        signed=signed is not None,
    )
    create_markdown_artifact(
        _write_markdown(summary),
        key="retrain",
        description=f"{MODEL} version {summary.version}",
    )
    return summary


def _write_documents(root: Path, version: int) -> None:
    """Write and sign the documents of a version, once the gate has judged it."""
    for fault in (try_to_keep_documents(root, registry.get_version(version)), publish_ledger(root)):
        if fault is not None:
            get_run_logger().warning(fault)


def _load_plan(root: Path) -> Plan:
    """The plan, once the settings are valid, too.

    Raises:
        RefusedError: if one of both is not valid as it is committed.
        UserError: if it is not valid, and not committed.
    """
    name = PARAMS_FILE
    try:
        load_params(root / name)
        name = PLAN_FILE
        return load_plan(root / name)
    except UserError as error:
        if _is_as_committed(root, name):
            raise RefusedError(str(error)) from None
        raise


def _is_as_committed(root: Path, name: str) -> bool:
    try:
        return read_file_at(root, "HEAD", name).encode() == (root / name).read_bytes()
    except (UserError, OSError):
        return False


def _has_inputs_of(now: Snapshot, committed: Snapshot) -> bool:
    """Whether settings and data are those of the commit; dvc.lock is what retrains write."""
    names = (PARAMS_FILE, PLAN_FILE, DATA_FILE)
    return all(now.files.get(name) == committed.files.get(name) for name in names)


def _is_unchanged(root: Path, now: Snapshot, latest: ModelVersion) -> bool:
    """Whether dvc.lock is the latest version's and everything in the folder agrees with it.

    dvc.lock holds the hashes of data, code and outs and the params of every stage, so it tells
    what matters to the model apart from what does not, such as another commit of the README. Outs
    that are only missing are restored.
    """
    stored = registry.find_snapshot(latest)
    # If the version's records are gone, nobody can tell.
    if stored is None or now.files.get(LOCK_FILE) != stored.files.get(LOCK_FILE):
        return False
    found = read_status(root)
    if found and is_only_missing(found):
        restore_outs(root)
        found = read_status(root)
    return not found


def _read_metrics(job: _Job) -> dict[str, Any]:
    """The metrics of every stage that declares metrics, by the stage's name."""
    return {
        stage.name: {
            key: value
            for path in stage.metrics
            for key, value in read_json(job.root / path).items()
        }
        for stage in job.stages
        if stage.metrics
    }


def _write_markdown(summary: Summary) -> str:
    """The summary as Prefect's pages show it."""
    rows = "\n".join(f"| {o.stage} | {o.fate} |" for o in summary.outcomes)
    return (
        f"## {MODEL} version {summary.version} ({summary.alias})\n\n"
        f"git tag `{name_tag(summary.version)}`, MLflow run `{summary.run}`\n\n"
        + "".join(f"{describe_publication(published)}\n\n" for published in summary.publications)
        + f"| stage | fate |\n| --- | --- |\n{rows}\n"
    )
