"""The retraining flow: bring the pipeline up to date, log it to MLflow, register the model.

    mammoflow retrain
    mammoflow retrain --pool gpu    # stages of dvc.yaml with `meta: {pool: gpu}` go to a worker

It runs with Prefect's temporary server, or against PREFECT_API_URL where that is set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.notify import notify, notify_failure
from flows.pipeline.ensure_data import ensure_data
from flows.pipeline.first_weights import ensure_weights
from flows.pipeline.graph import (
    Outcome,
    Stage,
    only_missing,
    read_pipeline,
    repro,
    restore_outs,
    status,
    worth_showing,
)
from flows.processes.follow import CommandError, stop_all
from flows.processes.run_git import file_at
from flows.promotion.flow import Promotion, settle, unsettled
from flows.publishing.publish import Publication, describe_publication, publish, publish_pending
from flows.remote.child_runs import cancel_children
from flows.remote.remote_stage import check_pools, run_in_pool
from flows.retraining import attempts
from flows.retraining.recovery import one_at_a_time, repair_dvc, repair_registry, workspace_id
from flows.servers.deployments import REFUSED
from flows.snapshots.snapshot import Snapshot, capture, snapshot_of_commit
from flows.tracking import registry
from flows.tracking.arithmetic import made_in
from flows.tracking.register import check_next_tag, git_tag, register
from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import Policy, load_params


class RefusedError(CommandError):
    """The snapshot itself is at fault: another retrain of it would end the same way."""


@dataclass(frozen=True)
class Summary:
    """What a retrain did."""

    outcomes: tuple[Outcome, ...]
    metrics: Mapping[str, Any]  # of every stage that declares metrics, by the stage's name
    version: int
    alias: str | None  # None if nothing was registered
    run: str  # id of the MLflow run
    registered: bool = field(default=True)
    gate: Promotion | None = None  # None if the version had been at the gate before
    publications: tuple[Publication, ...] = ()  # this version's first


@task(cache_policy=NO_CACHE)  # DVC knows better what has to be done again
def bring_up_to_date(
    stage: Stage, root: Path, experiment: str, parent: str, elsewhere: bool = False
) -> Outcome:
    """Bring one stage up to date and log to MLflow what dvc.yaml declares for it.

    Args:
        stage: the stage; its dependencies must be up to date.
        root: the project.
        experiment: id of the experiment in MLflow.
        parent: id of the retrain's run.
        elsewhere: let a worker of the stage's pool do it, instead of doing it in place.
    """
    logger = get_run_logger()
    run = registry.start_stage(experiment, parent, stage)

    def say(line: str) -> None:
        if worth_showing(line):
            logger.info(line)

    try:
        if elsewhere:
            outcome = run_in_pool(stage, root, run, say)
        else:
            outcome = Outcome(stage.name, repro(stage, root, {"MLFLOW_RUN_ID": run}, say))
        registry.log_stage(root, stage, outcome, run, parent)
    except registry.FAULTS:
        raise  # it would not take the run's end either; the next retrain writes it
    except BaseException:
        registry.end_run(run, succeeded=False)
        raise
    registry.end_run(run, succeeded=True)
    return outcome


def run_pipeline(
    stages: list[Stage], root: Path, experiment: str, parent: str, pools: Sequence[str] = ()
) -> list[Outcome]:
    """Run every stage as a Prefect task; those that do not wait for each other go side by side.

    Stages of the named pools run in a worker, the others in place.

    Raises:
        RefusedError: if stages ended with an error of their own; it has their names and last lines.
        CommandError: the same, if one of them was killed or found no room.
    """
    futures: dict[str, PrefectFuture[Outcome]] = {}
    try:
        for stage in stages:
            configured = bring_up_to_date.with_options(
                name=stage.name,
                task_run_name=stage.name,
                retries=stage.meta.retries,
                retry_delay_seconds=stage.meta.retry_delay,
            )
            futures[stage.name] = configured.submit(
                stage,
                root,
                experiment,
                parent,
                stage.meta.pool in pools,
                return_state=False,
                wait_for=[futures[name] for name in stage.upstream],
            )
        for future in futures.values():
            future.wait()
    except BaseException:
        # Cancelled or interrupted: the threads that wait for the stages do not notice.
        stop_all()
        cancel_children()
        raise
    failures = [
        str(future.state.result(raise_on_failure=False))
        for future in futures.values()
        if future.state.is_failed() or future.state.is_crashed()
    ]
    if failures:
        by_themselves = all(_by_itself(failure) for failure in failures)
        raise (RefusedError if by_themselves else CommandError)("\n".join(failures))
    return [future.result() for future in futures.values()]


def _by_itself(failure: str) -> bool:
    """Whether a stage ended with an error of its own, which it would meet again: stages are pure.

    DVC says how; a signal is negative, or beyond 128 where a shell tells of it.
    """
    found = re.findall(r"exited with (-?\d+)", failure)
    room = any(words in failure for words in ("the disk is full", "No space left on device"))
    return bool(found) and all(0 < int(status) <= 128 for status in found) and not room


@flow(
    name="retrain",
    flow_run_name=attempts.name_here,
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
@one_at_a_time
def retrain(
    force: bool = False, pools: tuple[str, ...] = (), commit: str | None = None
) -> Summary | State[Any]:
    """Retrain in the current folder and register what came of it.

    Args:
        force: go through the stages and register a version even if nothing has changed.
        pools: run stages that dvc.yaml wants in these pools through their workers.
        commit: do nothing unless the clone is at this commit; a worker takes its clone there first.

    Returns:
        The summary; or, where the user can mend what is wrong, a failed state that says it.
    """
    root = Path.cwd()
    logger = get_run_logger()
    try:
        policy = _policy(root)
        experiment = registry.open_store(root)
        check_next_tag(root)
        repair_dvc(root, logger.info)
        ensure_data(root, logger.info)
        ensure_weights(root, logger.info)
        before = capture(root)
        if commit is not None and before.commit != commit:
            return Completed(message=f"the clone is past {commit} already, at {before.commit}")
        committed = snapshot_of_commit(root, before.commit)
        trigger = committed.digest if _of_commit(before, committed) else ""
        if trigger:
            attempts.mark(trigger)
        try:
            stages = read_pipeline(root)
        except UserError as error:
            raise RefusedError(str(error)) from None
        check_pools(root, stages, pools)
        repair_registry(root, experiment, logger.info)
        latest = registry.latest_version()
        if latest is not None and not force and _unchanged(root, before, latest):
            version = int(latest.version)
            logger.info("Nothing changed since %s version %s.", registry.MODEL, version)
            gate = settle(root, latest, policy) if unsettled(latest) else None
            run, pending = registry.run_of(latest), publish_pending(root, logger.info)
            return Summary(
                (), _metrics(root, stages), version, None, run, False, gate, tuple(pending)
            )
        name = attempts.name_of(before.commit)
        tags = {"prefect_flow_run": flow_run.ui_url or str(flow_run.id)}
        parent = registry.start_retrain(experiment, before, workspace_id(root), trigger, name, tags)
        try:
            if (page := registry.page_of_run(experiment, parent)) is not None:
                create_link_artifact(page, "MLflow run", key="mlflow", description=name)
            registry.log_params(parent, before)
            outcomes = run_pipeline(stages, root, experiment, parent, pools)
            after = capture(root)
            if after.commit != before.commit:
                raise UserError("the commit changed during the run: run `mammoflow retrain` again")
            environment = made_in(root, after, outcomes, logger.warning)
            registry.log_snapshot(root, parent, after, environment)
            registry.log_pages(root, parent, stages)
            version, alias = register(root, after, parent)
        except registry.FAULTS:
            raise  # as above
        except BaseException:
            registry.end_run(parent, succeeded=False)
            raise
        registry.end_run(parent, succeeded=True)
        publications = [publish(root, version, logger.info)]
        if publications[0].complete:
            publications += publish_pending(root, logger.info)
        notify(
            f"{registry.MODEL} version {version}: registered as {alias}",
            f"MLflow run {parent}\n{describe_publication(publications[0])}",
        )
        gate = settle(root, registry.version(version), policy)
        alias = registry.CHAMPION if gate.outcome == "promoted" else alias
    except RefusedError as error:
        return Failed(name=REFUSED, message=str(error))
    except (UserError, CommandError) as error:
        return Failed(message=str(error))
    except registry.FAULTS as error:
        return Failed(message=f"{registry.in_words(error)}: every stage that has ended is kept")
    summary = Summary(
        tuple(outcomes),
        _metrics(root, stages),
        version,
        alias,
        parent,
        gate=gate,
        publications=tuple(publications),
    )
    create_markdown_artifact(
        _as_markdown(summary), key="retrain", description=f"{registry.MODEL} version {version}"
    )
    return summary


def _policy(root: Path) -> Policy:
    """The policy of params.yaml.

    Raises:
        RefusedError: if the settings are not valid as they are committed.
        UserError: if they are not valid, and not committed.
    """
    try:
        return load_params(root / "params.yaml").policy
    except UserError as error:
        if _as_committed(root, "params.yaml"):
            raise RefusedError(str(error)) from None
        raise


def _as_committed(root: Path, name: str) -> bool:
    try:
        return file_at(root, "HEAD", name).encode() == (root / name).read_bytes()
    except (UserError, OSError):
        return False


def _of_commit(now: Snapshot, committed: Snapshot) -> bool:
    """Whether settings and data are those of the commit; dvc.lock is what retrains write."""
    return all(
        now.files.get(name) == committed.files.get(name) for name in ("params.yaml", "data.dvc")
    )


def _unchanged(root: Path, now: Snapshot, latest: registry.ModelVersion) -> bool:
    """Whether dvc.lock is the latest version's and everything in the folder agrees with it.

    dvc.lock holds the hashes of data, code and outs and the params of every stage, so it tells
    what matters to the model apart from what does not, such as another commit of the README. Outs
    that are only missing are put back.
    """
    stored = registry.find_snapshot(latest)
    # Where its records are gone, nobody can tell.
    if stored is None or now.files.get("dvc.lock") != stored.files.get("dvc.lock"):
        return False
    found = status(root)
    if found and only_missing(found):
        restore_outs(root)
        found = status(root)
    return not found


def _metrics(root: Path, stages: list[Stage]) -> dict[str, Any]:
    return {
        stage.name: {key: x for path in stage.metrics for key, x in read_json(root / path).items()}
        for stage in stages
        if stage.metrics
    }


def _as_markdown(summary: Summary) -> str:
    rows = "\n".join(f"| {o.stage} | {o.fate} |" for o in summary.outcomes)
    return (
        f"## {registry.MODEL} version {summary.version} ({summary.alias})\n\n"
        f"git tag `{git_tag(summary.version)}`, MLflow run `{summary.run}`\n\n"
        + "".join(f"{describe_publication(published)}\n\n" for published in summary.publications)
        + f"| stage | fate |\n| --- | --- |\n{rows}\n"
    )
