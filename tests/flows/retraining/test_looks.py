"""A look that finds nothing starts nothing; one that finds something, or fails, a flow run."""

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

from flows.retraining import looks
from flows.retraining.branch_watch import Look
from flows.retraining.looks import WATCH, look_once
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


def test_the_watch_is_started_only_where_there_is_something_to_do_or_it_cannot_be_told(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason: str | None = "nothing new: it became version 3, which was judged"

    def look(root: Path) -> Look:
        return Look(COMMIT, "d", [], reason)

    def fails(root: Path) -> Look:
        raise UserError("git fetch: no route to host")

    monkeypatch.setattr(looks, "look", look)
    for _ in range(3):
        assert look_once(Path()) == f"{COMMIT}: {reason}"
    assert started(client, deployment) == []

    reason = None
    assert look_once(Path()) == f"{COMMIT}: is to be retrained; the watch was started"
    [run] = started(client, deployment)
    # A worker that is away finds one flow run when it is back, not one for each look.
    assert look_once(Path()) == f"the watch's flow run {run.id} has not ended"
    client.set_flow_run_state(run.id, Completed(), force=True)

    monkeypatch.setattr(looks, "look", fails)
    assert look_once(Path()) == "git fetch: no route to host; the watch was started"
    assert len(started(client, deployment)) == 2
    for run in started(client, deployment):
        client.set_flow_run_state(run.id, Completed(), force=True)

    client.pause_deployment(deployment)
    assert look_once(Path()) == f"the deployment {WATCH} is paused"
    assert len(started(client, deployment)) == 2


def test_a_server_that_is_away_ends_no_looking_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    said: list[str] = []
    naps = iter((0.5, 0.5, 0.5))

    def nap(seconds: float) -> None:
        assert seconds == next(naps)

    monkeypatch.setattr("flows.retraining.looks.time", SimpleNamespace(sleep=nap))
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(StopIteration),
    ):
        looks.keep_looking(Path(), 0.5, said.append)
    [sentence] = said
    assert sentence.startswith("Prefect's server does not start the watch: ")
