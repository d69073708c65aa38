"""The data trigger: a retrain for every new snapshot on the branch that the clone follows.

It is the deployment `watch` of prefect.yaml. New data arrive as a commit that changes data.dvc, but
new code or settings count as well. However many watchers there are, each snapshot is retrained
once: Prefect creates a single run for an idempotency key, here the snapshot's digest.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed

from flows import registry
from flows.run_git import fetch, git
from flows.snapshot import snapshot_of_commit
from mammo.errors import UserError

RETRAIN = "retrain/retrain"


@flow(name="watch")
def watch() -> State[Any]:
    """Fetch the branch; if its snapshot is not that of the last retrain, trigger one.

    The retrain takes its worker's clone to the commit (flows/workspace.py); this clone stays.
    """
    root = Path.cwd()
    try:
        fetch(root)
        commit = _followed(root)
        digest = snapshot_of_commit(root, commit).digest
        last = registry.last_trigger(registry.open_store(root))
    except UserError as error:
        return Failed(message=str(error))
    except registry.FAULTS as error:
        return Failed(message=registry.in_words(error))
    if last == digest:
        return Completed(message=f"nothing new: {commit} is what the last retrain started from")
    run = run_deployment(
        RETRAIN,
        parameters={"commit": commit},
        idempotency_key=f"snapshot {digest}",
        timeout=0,
        as_subflow=False,  # the watch is over long before it
    )
    assert isinstance(run, FlowRun)
    get_run_logger().info("retrain of %s, snapshot %s: flow run %s", commit, digest, run.name)
    return Completed(message=f"{commit} is retrained by the flow run {run.name}")


def _followed(root: Path) -> str:
    """The newest commit of the branch that the clone's branch follows."""
    try:
        return git(root, "rev-parse", "--verify", "@{upstream}")
    except UserError:
        raise UserError(
            f"the clone {root} follows no branch: `git branch --set-upstream-to=origin/main`"
        ) from None
