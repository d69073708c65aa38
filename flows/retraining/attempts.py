"""What Prefect knows of the retrains of a snapshot: who asked for them, and how they ended.

Each carries a tag that names the snapshot. The watch gives it to those that it starts, so one that
could not even begin has it, too; any other retrain takes it when it knows its commit.
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
from mammo.base.errors import UserError

RETRAIN = "retrain/retrain"
AGAIN, AT_MOST = timedelta(minutes=15), timedelta(days=1)

_BY_THE_WATCH = "watch"
_BY_THE_SCHEDULE = "auto-scheduled"  # Prefect's own tag


def name_of(commit: str) -> str:
    """What the current flow run, a retrain, is called: of which commit, and who asked for it."""
    tags = flow_run.tags or []
    by = "hand"
    if _BY_THE_WATCH in tags:
        by = "the watch"
    elif _BY_THE_SCHEDULE in tags:
        by = "the nightly"
    return f"retrain {commit[:7]} by {by}"


def name_here() -> str:
    """The same, for the commit of the current folder."""
    try:
        return name_of(git(Path.cwd(), "rev-parse", "--verify", "HEAD"))
    except UserError:
        return name_of("?")  # the retrain itself will say what is wrong


def mark(digest: str) -> None:
    """Let the current flow run carry the tag of the snapshot that it retrains."""
    tags = flow_run.tags or []
    if flow_run.id and _tag(digest) not in tags:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), tags=[*tags, _tag(digest)])


def attempts(digest: str) -> list[FlowRun]:
    """The retrains of a snapshot, the oldest first."""
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(digest)]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=50
        )
    return list(reversed(found))


def start(commit: str, digest: str, earlier: list[FlowRun]) -> FlowRun:
    """Start a retrain of a commit after those that came to nothing.

    However many watchers do so at once, Prefect makes a single run: for one key there is one.
    """
    run = run_deployment(
        RETRAIN,
        parameters={"commit": commit},
        flow_run_name=f"retrain {commit[:7]} by the watch",
        tags=[_BY_THE_WATCH, _tag(digest)],
        idempotency_key=f"snapshot {digest} after {earlier[-1].id if earlier else 'none'}",
        timeout=0,
        as_subflow=False,  # the watch is over long before it
    )
    assert isinstance(run, FlowRun)
    return run


def not_before(earlier: list[FlowRun]) -> datetime:
    """When another attempt makes sense: at once after the first, then later and later, up to a day:
    whatever keeps them from their end may need a person."""
    [*_, last] = earlier
    ended = last.state.timestamp if last.state is not None else datetime.now(UTC)
    return ended + min(AGAIN * (2 ** min(len(earlier) - 1, 10) - 1), AT_MOST)


def _tag(digest: str) -> str:
    return f"snapshot {digest[:16]}"
