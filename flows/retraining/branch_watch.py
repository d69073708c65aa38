"""The data trigger: a retrain for every new snapshot on the branch that the clone follows.

It is the deployment `watch` of prefect.yaml; flows/retraining/looks.py starts it when a look
finds something.
New data arrive as a commit that changes data.dvc, but new code or settings count as well. A
snapshot is done when the gate has judged a version of it, or when its retrain was refused for a
reason that lies in the snapshot. One that came to no end, since it could not begin, was killed or
lost a server, is taken up again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed

from flows.processes.run_git import fetch, git
from flows.promotion.flow import judged
from flows.retraining.attempts import attempts, not_before, start
from flows.servers.deployments import REFUSED
from flows.snapshots.snapshot import snapshot_of_commit
from flows.tracking import registry
from mammo.base.errors import UserError


@dataclass(frozen=True)
class Look:
    """What a look found: the followed branch's snapshot, and the retrains that it has had."""

    commit: str
    digest: str
    earlier: list[FlowRun]  # the oldest first
    reason: str | None  # why no retrain is to be started; None if one is


@flow(name="watch", flow_run_name="watch")
def watch() -> State[Any]:
    """Fetch the branch; if its snapshot is not done and nobody is at it, start a retrain.

    The retrain takes its worker's clone to the commit (`worker_clone`); this clone stays.
    """
    try:
        seen = look(Path.cwd())
    except UserError as error:
        return Failed(message=str(error))
    except registry.FAULTS as error:
        return Failed(message=registry.in_words(error))
    if seen.reason is not None:
        return Completed(message=f"{seen.commit}: {seen.reason}")
    run = start(seen.commit, seen.digest, seen.earlier)
    get_run_logger().info(
        "retrain of %s, snapshot %s: flow run %s", seen.commit, seen.digest, run.id
    )
    return Completed(message=f"{seen.commit} is retrained by the flow run {run.name}")


def look(root: Path) -> Look:
    """Fetch the branch, and ask the registry and Prefect what became of its snapshot.

    Raises:
        UserError: if git or MLflow does not answer, or the clone follows no branch.
        MlflowException: if MLflow fails.
    """
    fetch(root)
    commit = _followed(root)
    digest = snapshot_of_commit(root, commit).digest
    versions = registry.made_for(registry.open_store(root), digest)
    done = next((int(version.version) for version in versions if judged(version)), None)
    if done is not None:
        return Look(commit, digest, [], f"nothing new: it became version {done}, which was judged")
    earlier = attempts(digest)
    return Look(commit, digest, earlier, reason_to_wait(earlier, datetime.now(UTC)))


def reason_to_wait(earlier: list[FlowRun], now: datetime) -> str | None:
    """Why no retrain of a snapshot is started now, given those before it, the oldest first."""
    states = [(run.name, run.state) for run in earlier if run.state is not None]
    for name, state in states:
        if not state.is_final():
            return f"the flow run {name} is at it ({state.name})"
    if not states:
        return None
    name, last = states[-1]
    if last.is_completed():
        return f"nothing new: the flow run {name} has seen to it"
    if last.name == REFUSED:
        return f"the flow run {name} was refused, and so would another be: {last.message}"
    if last.is_cancelled():
        return f"somebody cancelled the flow run {name}: it is theirs to start another"
    if now < (then := not_before(earlier)):
        return (
            f"the flow run {name} ended as {last.name} ({last.message}), the {len(earlier)}th that "
            f"came to no end: another is started after {then:%Y-%m-%d %H:%M} UTC"
        )
    return None


def _followed(root: Path) -> str:
    """The newest commit of the branch that the clone's branch follows."""
    try:
        return git(root, "rev-parse", "--verify", "@{upstream}")
    except UserError:
        raise UserError(
            f"the clone {root} follows no branch: `git branch --set-upstream-to=origin/main`"
        ) from None
