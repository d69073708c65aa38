"""The watch is started by a new snapshot, or by a failure to ask, and else not."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from flows.retraining import watch_loop
from flows.retraining.branch_watch import BranchState
from flows.retraining.watch_loop import WATCH, start_if_needed
from mammo.base.errors import UserError

# Prefect's client in this process: forked children of later tests would not end well.
pytestmark = pytest.mark.whole

COMMIT = "4435b4e" + "0" * 33


@flow(name="watch")
def watch() -> None:
    """What the deployment is of; nobody runs it."""


@pytest.fixture
def client(prefect_here: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    made = client.create_deployment(client.create_flow(watch), WATCH.partition("/")[2])
    yield made
    client.delete_deployment(made)


def started(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return client.read_flow_runs(deployment_filter=chosen)


def test_the_watch_is_started_only_where_a_snapshot_is_to_be_retrained_or_that_cannot_be_told(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason: str | None = "nothing new: it became version 3, which was judged"

    def inspect_branch(root: Path) -> BranchState:
        return BranchState(COMMIT, "d", [], reason)

    def fails(root: Path) -> BranchState:
        raise UserError("git fetch: no route to host")

    monkeypatch.setattr(watch_loop, "inspect_branch", inspect_branch)
    for _ in range(3):
        assert start_if_needed(Path()) == f"{COMMIT}: {reason}"
    assert started(client, deployment) == []

    reason = None
    assert start_if_needed(Path()) == f"{COMMIT}: is to be retrained; the watch was started"
    [run] = started(client, deployment)
    # A worker that is away finds one flow run when it is back, not one for each look.
    assert start_if_needed(Path()) == f"the watch's flow run {run.id} has not ended"
    client.set_flow_run_state(run.id, Completed(), force=True)

    monkeypatch.setattr(watch_loop, "inspect_branch", fails)
    assert start_if_needed(Path()) == "git fetch: no route to host; the watch was started"
    assert len(started(client, deployment)) == 2
    for run in started(client, deployment):
        client.set_flow_run_state(run.id, Completed(), force=True)

    client.pause_deployment(deployment)
    assert start_if_needed(Path()) == f"the deployment {WATCH} is paused"
    assert len(started(client, deployment)) == 2


def test_a_server_that_is_away_does_not_end_the_loop_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    said: list[str] = []
    naps = iter((0.5, 0.5, 0.5))

    def nap(seconds: float) -> None:
        assert seconds == next(naps)

    monkeypatch.setattr("flows.retraining.watch_loop.time", SimpleNamespace(sleep=nap))
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(StopIteration),
    ):
        watch_loop.ask_repeatedly(Path(), 0.5, said.append)
    [sentence] = said
    assert sentence.startswith("Prefect's server does not start the watch: ")
