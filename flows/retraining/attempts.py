"""What Prefect knows of the retrains of a snapshot: who asked for them, and how they ended.

The flow run of each retrain has a tag that names the snapshot. The watch sets the tag when it
starts a retrain, so a run that could not even begin has it, too. Any other retrain sets the tag
itself, as soon as it knows its commit.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from flows.processes.run_git import git
from flows.tracking.runs import FLOW_RUN_TAG
from mammo.base.errors import UserError

RETRAIN = "retrain/retrain"
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=15), timedelta(days=1)

_BY_THE_WATCH = "watch"
_BY_THE_SCHEDULE = "auto-scheduled"  # Prefect's own tag


def name_run(commit: str) -> str:
    """A name for the current flow run, a retrain: its commit, and who asked for it."""
    tags = flow_run.tags or []
    by = "hand"
    if _BY_THE_WATCH in tags:
        by = "the watch"
    elif _BY_THE_SCHEDULE in tags:
        by = "the nightly"
    return f"retrain {commit[:7]} by {by}"


def name_current_run() -> str:
    """The same, for the commit of the current folder."""
    try:
        return name_run(git(Path.cwd(), "rev-parse", "--verify", "HEAD"))
    except UserError:
        return name_run("?")  # the retrain itself will say what is wrong


def tag_current_run(digest: str) -> None:
    """Set the tag of the snapshot that the current flow run retrains."""
    tags = flow_run.tags or []
    if flow_run.id and _name_tag(digest) not in tags:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), tags=[*tags, _name_tag(digest)])


def find_attempts(digest: str) -> list[FlowRun]:
    """The newest 50 retrains of a snapshot, the oldest of them first."""
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[_name_tag(digest)]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=50
        )
    return list(reversed(found))


def start_attempt(commit: str, digest: str, earlier: list[FlowRun]) -> FlowRun:
    """Start a retrain of a commit.

    If several watches do so at once, Prefect makes one run only: they give it the same key.

    Args:
        commit: what is to be retrained.
        digest: of the commit's own snapshot.
        earlier: the retrains of the snapshot that did not finish, the oldest first.
    """
    run = run_deployment(
        RETRAIN,
        parameters={"commit": commit},
        flow_run_name=f"retrain {commit[:7]} by the watch",
        tags=[_BY_THE_WATCH, _name_tag(digest)],
        idempotency_key=f"snapshot {digest} after {earlier[-1].id if earlier else 'none'}",
        timeout=0,
        as_subflow=False,  # the watch ends long before the retrain does
    )
    assert isinstance(run, FlowRun)
    return run


def find_next_start(earlier: list[FlowRun]) -> datetime:
    """When another attempt makes sense, after attempts that did not finish, the oldest first.

    After the first one: at once. After each further one the wait is longer, up to a day, since the
    cause may need a person.
    """
    [*_, last] = earlier
    ended = last.state.timestamp if last.state is not None else datetime.now(UTC)
    wait: timedelta = min(FIRST_WAIT * (2 ** min(len(earlier) - 1, 10) - 1), LONGEST_WAIT)
    return ended + wait


def _name_tag(digest: str) -> str:
    return f"{FLOW_RUN_TAG}{digest[:16]}"
