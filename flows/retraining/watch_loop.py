"""Asks again and again, in one process of `mammoflow up`, whether the watch is to be started.

    python -m flows.retraining.watch_loop 900       # seconds from one question to the next

A question whose answer is no costs a fetch and a few requests. As a flow run of its own it took ten
seconds of a core, left rows in Prefect's database, and took memory of Prefect's server that was
never freed. So a flow run of the deployment `watch` is started only if a snapshot is to be
retrained, or if that cannot be told. That flow run asks once more; what it does, or why it fails,
is seen in Prefect.
"""

import sys
import time
from pathlib import Path

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException

from flows.processes.words import Say
from flows.retraining.branch_watch import inspect_branch
from flows.tracking.registry import EXPECTED, describe_error

WATCH = "watch/watch"

_UNFINISHED = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


def start_if_needed(root: Path) -> str:
    """Start the deployment `watch` if there is a reason to; return what was found, as a sentence.

    Args:
        root: the clone that follows a branch.

    Raises:
        HTTPError, PrefectException: if Prefect's server does not start it.
    """
    if (reason := _find_reason_to_wait()) is not None:
        return reason
    try:
        seen = inspect_branch(root)
        if seen.reason is not None:
            return f"{seen.commit}: {seen.reason}"
        found = f"{seen.commit}: is to be retrained"
    except EXPECTED as error:
        found = describe_error(error)
    run_deployment(WATCH, timeout=0, as_subflow=False)
    return f"{found}; the watch was started"


def _find_reason_to_wait() -> str | None:
    """Why no watch is to be started, whatever the branch has; None if one may be."""
    with get_client(sync_client=True) as client:
        watch = client.read_deployment_by_name(WATCH)
        if watch.paused:
            return f"the deployment {WATCH} is paused"
        unfinished = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[watch.id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_UNFINISHED]))
            ),
            limit=1,
        )
    return f"the watch's flow run {unfinished[0].id} has not ended" if unfinished else None


def ask_repeatedly(root: Path, every: float, say: Say) -> None:
    """Ask every `every` seconds, and say what was found whenever that changes."""
    before = ""
    while True:
        time.sleep(every)
        try:
            found = start_if_needed(root)
        except (HTTPError, PrefectException) as error:
            found = f"Prefect's server does not start the watch: {error}"
        if found != before:
            say(found)
        before = found


def main(arguments: list[str]) -> None:
    """Ask until killed."""
    [every] = arguments
    ask_repeatedly(Path.cwd(), float(every), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(sys.argv[1:])
