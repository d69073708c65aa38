"""Runs a stage by a worker of its pool; dvc.lock is then as if it had run in this folder.

Deps go to DVC's default remote, the deployment `run-stage/<pool>` runs the stage of the snapshot
in the worker's own clone, and what it made comes back through the remote, with the stage's entry of
the worker's dvc.lock.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.pipeline.graph import Fate, Stage, StageOutcome, repro, require_pools
from flows.pipeline.lock_and_cache import LockEntry
from flows.pipeline.locked_repo import open_locked
from flows.pipeline.transfer import is_at_hand, pull_result, push_deps, require_remote
from flows.processes.checked import Readable
from flows.processes.follow import CommandError
from flows.processes.reach import require_shared_prefect
from flows.processes.words import Say
from flows.remote.child_runs import run_child
from flows.snapshots.snapshot import capture
from mammo.base.errors import UserError


class StageResult(BaseModel):
    """What a worker reports of a stage that it brought up to date: its final message, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fate: Fate
    entry: LockEntry  # of its dvc.lock
    arithmetic: Mapping[Readable, Readable]  # of its machine: see `arithmetic.measure`


def check_pools(root: Path, stages: Sequence[Stage], pools: Sequence[str]) -> None:
    """Make sure, before any work, that stages can run in these pools.

    Raises:
        UserError: if no stage wants a pool, or server, deployment or DVC remote is missing.
    """
    if not pools:
        return
    require_pools(stages, pools)
    require_remote(root)
    check_workers(pools)


def check_workers(pools: Sequence[str]) -> None:
    """Make sure that Prefect has a deployment for each pool.

    Raises:
        UserError: if it has not, or there is no server.
    """
    require_shared_prefect()
    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                client.read_deployment_by_name(_name_deployment(pool))
            except ObjectNotFound:
                raise UserError(
                    f"Prefect has no deployment {_name_deployment(pool)}: run `prefect deploy "
                    f"--all`"
                ) from None


def run_in_pool(stage: Stage, root: Path, mlflow_run: str, on_line: Say) -> StageOutcome:
    """Bring one stage up to date through a worker of its pool; its dependencies must be.

    A stage that is up to date, or whose outs are in the cache, is not sent to a worker.

    Raises:
        CommandError: if the child does not complete, with the last lines of its log; or if its
            result is not of this folder's stage.
    """
    try:
        if is_at_hand(root, stage.name):
            return StageOutcome(stage.name, repro(stage, root, {}, on_line))
        push_deps(root, stage.name)
        with open_locked(root):
            snapshot = capture(root)  # while no other stage writes to dvc.lock
        said = run_child(
            _name_deployment(stage.meta.pool),
            {"stage": stage.name, "snapshot": snapshot.to_json(), "mlflow_run": mlflow_run},
            stage.meta.time_limit,
            on_line,
        )
        done = _read_done(stage.meta.pool, said)
        pull_result(root, stage.name, done.entry)
    except UserError as error:
        raise CommandError(str(error)) from error
    return StageOutcome(stage.name, done.fate, done.arithmetic)


def _read_done(pool: str, said: str) -> StageResult:
    """Read a worker's final message.

    Raises:
        UserError: if this code does not know its form.
    """
    try:
        return StageResult.model_validate_json(said)
    except ValidationError as error:
        raise UserError(
            f"{_name_deployment(pool)} ended with words that this code does not know: bring its "
            f"worker's clone to this commit and start it anew ({error.errors()[0]['msg']})"
        ) from None


def _name_deployment(pool: str) -> str:
    return f"run-stage/{pool}"
