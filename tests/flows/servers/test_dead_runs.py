"""The rule for dead runs, on a real Prefect server: it finds the dead, and only them."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running
from pydantic import SecretStr

from flows.servers.deployments import _DEAD, _NOTICES, make_notices, make_rule
from mammo.base.errors import UserError
from tests.support.receiver import listening
from tests.support.toys import find_free_port, prefect_server, until

# Prefect's client in this process: forked children of later tests would not end well.
pytestmark = [pytest.mark.timeout(900), pytest.mark.whole]

WITHIN = 20  # seconds without a sign of life
FAULTY = {f"prefect.flow-run.prefect.flow-run.{end}" for end in ("Completed", "Failed")}


@flow
def nothing() -> None:
    """What the runs are runs of; it never runs itself."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncPrefectClient]:
    port = find_free_port()
    address = f"http://127.0.0.1:{port}/api"
    with (
        prefect_server(tmp_path_factory.mktemp("prefect"), port),
        temporary_settings({PREFECT_API_URL: address}),
        get_client(sync_client=True) as client,
    ):
        yield client


@pytest.fixture
def rule(client: SyncPrefectClient) -> Iterator[Automation]:
    """The rule as an earlier Mammoflow made it, on a server that was there before."""
    asyncio.run(make_rule(timedelta(seconds=WITHIN)))
    made = found(client)
    assert isinstance(made.trigger, EventTrigger)
    made.trigger.expect = {"prefect.flow-run.heartbeat", *FAULTY}
    asyncio.run(made.aupdate())
    yield made
    asyncio.run(made.adelete())


@flow(name="retrain")
def retrain() -> None:
    """The same, of a flow whose failures are told."""


def found(client: SyncPrefectClient) -> Automation:
    [one] = client.read_automations_by_name(_DEAD)
    made = Automation(**one.model_dump())
    assert isinstance(made.trigger, EventTrigger)
    return made


def run_with_a_beat(client: SyncPrefectClient, end: State[Any] | None) -> UUID:
    """A flow run that has given one sign of life, and then ended, or fallen silent."""
    run = client.create_flow_run(nothing, state=Running()).id
    beat = {
        "id": str(run),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
    }
    client.request("POST", "/events", json=[beat]).raise_for_status()
    if end is not None:
        client.set_flow_run_state(run, end)
    return run


def fired_for(client: SyncPrefectClient) -> set[str]:
    """The flow runs that the rule has fired for."""
    wanted = {"filter": {"event": {"name": ["prefect.automation.triggered"]}}, "limit": 50}
    answer = client.request("POST", "/events/filter", json=wanted)
    answer.raise_for_status()
    return {
        label.removeprefix("prefect.flow-run.")
        for event in answer.json()["events"]
        for label in event["payload"]["triggering_labels"].values()
    }


def state_of(client: SyncPrefectClient, run: UUID) -> str:
    state = client.read_flow_run(run).state
    assert state is not None
    return state.type.value


def test_a_run_that_fell_silent_is_crashed_and_one_that_ended_is_left_alone(
    client: SyncPrefectClient, rule: Automation
) -> None:
    asyncio.run(make_rule())  # what `mammoflow up` does
    ends: list[State[Any]] = [
        Completed(),
        Failed(),
        Cancelled(),
        Failed(name="TimedOut"),
    ]
    # Prefect takes its events by two, and again those that its database was too busy for: the sign
    # of life of one run in many may come in after its end. A rule that does not know an end fires
    # for each run that ended so.
    ended = [[run_with_a_beat(client, end) for _ in range(3)] for end in ends]
    time.sleep(1)  # so that theirs is looked at first
    dead = run_with_a_beat(client, None)
    until(lambda: state_of(client, dead) == "CRASHED")
    until(lambda: str(dead) in fired_for(client))
    fired = fired_for(client)
    of_each = [[run for run in runs if str(run) not in fired] for runs in ended]
    assert [end.name for end, left_alone in zip(ends, of_each, strict=True) if not left_alone] == []
    assert [{state_of(client, run) for run in runs} for runs in ended] == [
        {"COMPLETED"},
        {"FAILED"},
        {"CANCELLED"},
        {"FAILED"},
    ]


def test_a_server_that_has_the_faulty_rule_gets_the_mended_one_and_keeps_what_was_set(
    client: SyncPrefectClient, rule: Automation
) -> None:
    asyncio.run(rule.adisable())
    asyncio.run(make_rule())
    mended = found(client)
    assert mended.id == rule.id
    assert isinstance(mended.trigger, EventTrigger)
    assert "prefect.flow-run.Completed" in mended.trigger.expect
    assert not FAULTY & mended.trigger.expect
    assert mended.trigger.within == timedelta(seconds=WITHIN)
    assert not mended.enabled
    asyncio.run(make_rule())
    assert found(client) == mended


def notices(client: SyncPrefectClient) -> list[Automation]:
    return [
        Automation(**rule.model_dump())
        for name in _NOTICES
        for rule in client.read_automations_by_name(name)
    ]


def test_a_run_that_could_not_begin_or_fell_silent_is_told_by_the_server_once(
    client: SyncPrefectClient,
) -> None:
    """And one that ran is told by its own hook, on the machine where it ran."""
    with listening() as receiver:
        Webhook(url=SecretStr(receiver.url)).save("ops", overwrite=True)
        asyncio.run(make_notices("webhook/ops"))
        time.sleep(2)  # the server reads its automations anew
        ran = client.create_flow_run(retrain, name="one that ran", state=Running()).id
        client.set_flow_run_state(ran, Failed(message="told by itself"))
        for name in ("one that could not begin", "another in the same hour"):
            run = client.create_flow_run(retrain, name=name, state=Pending()).id
            client.set_flow_run_state(run, Crashed(message='not committed: ".dvc/config"'))
        gone = client.create_flow_run(retrain, name="one whose machine is gone", state=Running())
        client.set_flow_run_state(gone.id, Crashed(message="no sign of life for 300 s"))
        until(lambda: len(receiver.received) >= 2, within=60)
        time.sleep(3)  # a third one would have come
        bodies = sorted(message["body"] for message in receiver.received)
        assert bodies == [
            'one that could not begin: not committed: ".dvc/config"',
            "one whose machine is gone: no sign of life for 300 s",
        ]
        assert receiver.subjects() == ["retrain crashed"] * 2
    before = notices(client)
    assert len(before) == len(_NOTICES)
    asyncio.run(make_notices("webhook/ops"))
    assert notices(client) == before
    [first, _] = before  # as an earlier version made it, which knew fewer flows
    assert isinstance(first.trigger, EventTrigger)
    all_flows = first.trigger.match_related
    first.trigger.match_related = ResourceSpecification({"prefect.resource.name": ["retrain"]})
    first.update()
    asyncio.run(make_notices("webhook/ops"))
    [mended, _] = notices(client)
    assert isinstance(mended.trigger, EventTrigger)
    assert mended.trigger.match_related == all_flows
    asyncio.run(make_notices(""))  # no longer wanted
    assert notices(client) == []


def test_a_block_that_can_tell_nobody_is_named(client: SyncPrefectClient) -> None:
    Secret(value=SecretStr("hidden")).save("ops", overwrite=True)
    for slug, words in (("webhook/nobody", "no such block"), ("secret/ops", "sends no notif")):
        with pytest.raises(UserError, match=f"MAMMOFLOW_NOTIFY={slug}: .*{words}"):
            asyncio.run(make_notices(slug))
    assert notices(client) == []
