"""The watch's look, again and again, in one process that stays: `mammoflow up` starts it.

    python -m flows.retraining.looks 900       # seconds from one look to the next

A look that finds nothing costs a fetch and some questions. As a flow run of its own it took ten
seconds of a core, and left rows in Prefect's database and memory with its server that did not come
back. So a flow run of the deployment `watch` is started only where there is something to do, or
where it cannot be told: it looks once more, and what it does or fails at is seen in Prefect.
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
from flows.tracking.registry import FAULTS, in_words
from mammo.base.errors import UserError

WATCH = "watch/watch"

_AHEAD = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


def look_once(root: Path) -> str:
    """Start the deployment `watch` if there is a reason to; return what was found.

    Args:
        root: the clone that follows a branch.

    Raises:
        HTTPError, PrefectException: if Prefect's server does not take it.
    """
    if (idle := _idle()) is not None:
        return idle
    try:
        seen = look(root)
        if seen.reason is not None:
            return f"{seen.commit}: {seen.reason}"
        found = f"{seen.commit}: is to be retrained"
    except UserError as error:
        found = str(error)
    except FAULTS as error:
        found = in_words(error)
    run_deployment(WATCH, timeout=0, as_subflow=False)
    return f"{found}; the watch was started"


def _idle() -> str | None:
    """Why no watch is to be started whatever a look would find."""
    with get_client(sync_client=True) as client:
        watch = client.read_deployment_by_name(WATCH)
        if watch.paused:
            return f"the deployment {WATCH} is paused"
        ahead = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[watch.id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_AHEAD]))
            ),
            limit=1,
        )
    return f"the watch's flow run {ahead[0].id} has not ended" if ahead else None


def keep_looking(root: Path, every: float, say: Say) -> None:
    """Look once in so many seconds; what is found is said when it changes."""
    before = ""
    while True:
        time.sleep(every)
        try:
            found = look_once(root)
        except (HTTPError, PrefectException) as error:
            found = f"Prefect's server does not take the watch: {error}"
        if found != before:
            say(found)
        before = found


def main(arguments: list[str]) -> None:
    """Look until killed."""
    [every] = arguments
    keep_looking(Path.cwd(), float(every), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main(sys.argv[1:])
