"""The data trigger: a retrain for every new snapshot on the branch that the clone follows.

It is the deployment `watch` of prefect.yaml; flows/retraining/watch_loop.py starts it when there is
a snapshot to retrain.

New data arrive as a commit that changes data.dvc, but new code or settings count as well. A
snapshot is done when the gate has judged a version of it, or when its retrain was refused for a
reason that lies in the snapshot. A retrain that did not finish, because it could not begin, was
killed or had no server, is started again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed

from flows.processes.run_git import fetch, git
from flows.promotion.flow import was_judged
from flows.retraining.attempts import find_attempts, find_next_start, start_attempt
from flows.servers.deployments import REFUSED
from flows.snapshots.snapshot import read_commit
from flows.tracking import registry, runs
from mammo.base.errors import UserError


@dataclass(frozen=True)
class BranchState:
    """The snapshot of the branch that the clone follows, and its retrains so far."""

    commit: str
    digest: str
    earlier: list[FlowRun]  # the oldest first
    reason: str | None  # why no retrain is to be started; None if one is to be


@flow(name="watch", flow_run_name="watch")
def watch() -> State[Any]:
    """Fetch the branch; start a retrain if its snapshot is not done and no retrain of it runs.

    The retrain checks the commit out in its worker's clone (`worker_clone`), not in this one.
    """
    try:
        seen = inspect_branch(Path.cwd())
    except registry.EXPECTED as error:
        return Failed(message=registry.describe_error(error))
    if seen.reason is not None:
        return Completed(message=f"{seen.commit}: {seen.reason}")
    run = start_attempt(seen.commit, seen.digest, seen.earlier)
    get_run_logger().info(
        "retrain of %s, snapshot %s: flow run %s", seen.commit, seen.digest, run.id
    )
    return Completed(message=f"{seen.commit} is retrained by the flow run {run.name}")


def inspect_branch(root: Path) -> BranchState:
    """Fetch the branch, and ask the registry and Prefect about its snapshot.

    Raises:
        UserError: if git or MLflow does not answer, or the clone follows no branch.
        MlflowException: if MLflow fails.
    """
    fetch(root)
    commit = _read_upstream(root)
    digest = read_commit(root, commit).digest
    versions = runs.find_versions_of_commit(registry.open_store(root), digest)
    done = next((int(version.version) for version in versions if was_judged(version)), None)
    if done is not None:
        return BranchState(
            commit, digest, [], f"nothing new: it became version {done}, which was judged"
        )
    earlier = find_attempts(digest)
    return BranchState(commit, digest, earlier, find_reason_to_wait(earlier, datetime.now(UTC)))


def find_reason_to_wait(earlier: list[FlowRun], now: datetime) -> str | None:
    """Why no retrain of a snapshot is to be started now; None if one is to be.

    Args:
        earlier: the retrains of the snapshot so far, the oldest first.
        now: in UTC.
    """
    states = [(run.name, run.state) for run in earlier if run.state is not None]
    for name, state in states:
        if not state.is_final():
            return f"the flow run {name} is retraining it ({state.name})"
    if not states:
        return None
    name, last = states[-1]
    if last.is_completed():
        return f"nothing new: the flow run {name} has retrained it"
    if last.name == REFUSED:
        return f"the flow run {name} was refused, and another one would be, too: {last.message}"
    if last.is_cancelled():
        return f"somebody cancelled the flow run {name}, so another one is started by hand only"
    if now < (then := find_next_start(earlier)):
        return (
            f"the flow run {name} ended as {last.name} ({last.message}), number {len(earlier)} of "
            f"those that did not finish: another is started after {then:%Y-%m-%d %H:%M} UTC"
        )
    return None


def _read_upstream(root: Path) -> str:
    """The newest commit of the remote branch that the clone's branch follows."""
    try:
        return git(root, "rev-parse", "--verify", "@{upstream}")
    except UserError:
        raise UserError(
            f"the clone {root} follows no branch: `git branch --set-upstream-to=origin/main`"
        ) from None
