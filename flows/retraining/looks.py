"""The look of the watch, repeated in one process that `mammoflow up` starts.

    python -m flows.retraining.looks 900       # seconds from one look to the next

A look that finds nothing costs a fetch and a few requests. As a flow run of its own it took ten
seconds of a core, left rows in Prefect's database, and took memory of Prefect's server that was
never freed. So a flow run of the deployment `watch` is started only if there is something to do, or
if the look failed. That flow run looks once more; what it does, or why it fails, is seen in
Prefect.
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
from flows.retraining.branch_watch import look
from flows.tracking.registry import EXPECTED, describe_error

WATCH = "watch/watch"

_UNFINISHED = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


def look_once(root: Path) -> str:
    """Start the deployment `watch` if there is a reason to; return what was found, in words.

    Args:
        root: the clone that follows a branch.

    Raises:
        HTTPError, PrefectException: if Prefect's server does not start it.
    """
    if (reason := _find_reason_to_wait()) is not None:
        return reason
    try:
        seen = look(root)
        if seen.reason is not None:
            return f"{seen.commit}: {seen.reason}"
        found = f"{seen.commit}: is to be retrained"
    except EXPECTED as error:
        found = describe_error(error)
    run_deployment(WATCH, timeout=0, as_subflow=False)
    return f"{found}; the watch was started"


def _find_reason_to_wait() -> str | None:
    """Why no watch is to be started, whatever a look would find; None if one may be."""
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


def keep_looking(root: Path, every: float, say: Say) -> None:
    """Look every `every` seconds, and say what was found whenever that changes."""
    before = ""
    while True:
        time.sleep(every)
        try:
            found = look_once(root)
        except (HTTPError, PrefectException) as error:
            found = f"Prefect's server does not start the watch: {error}"
        if found != before:
            say(found)
        before = found


def main(arguments: list[str]) -> None:
    """Look until killed."""
    [every] = arguments
    keep_looking(Path.cwd(), float(every), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(sys.argv[1:])
