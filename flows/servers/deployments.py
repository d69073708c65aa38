"""What Prefect must know before work can be done: pools, deployments, and rules for failed runs."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.notify import VARIABLE, make_server_action
from flows.processes.follow import CommandError, follow
from flows.processes.words import Say
from flows.servers.wanted import POOLS
from mammo.base.errors import UserError

if TYPE_CHECKING:
    from prefect.automations import Automation
    from prefect.events.schemas.automations import EventTrigger
    from prefect.events.schemas.events import ResourceSpecification

HEARTBEAT = 30  # seconds between two heartbeats of a flow run; Prefect allows no less
DEAD_AFTER = 10  # heartbeats; a loaded machine misses a few

REFUSED = "Refused"
"""The state of a retrain that failed for a reason in its snapshot: another would fail, too."""

SILENT = (
    *("Completed", "Failed", REFUSED, "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended"),
)
"""States, by Prefect's names, in which a flow run sends no heartbeat and is not dead."""

SILENCE = "no sign of life"
"""How the message of a flow run begins that the rule has declared crashed."""

_DEAD = "Mammoflow: crash flow runs without a heartbeat"
_NOTICES = {
    # The flow's own hook could not send these: the flow was never loaded, or its machine is gone.
    "Mammoflow: tell of flow runs that could not begin": {"prefect.run-count": "0"},
    "Mammoflow: tell of flow runs that fell silent": {"prefect.state-message": f"{SILENCE}*"},
}
_NOTIFIED = ("retrain", "watch", "promote", "audit", "gc")
"""Flows of which the server tells when they crash; a stage's failure is part of its retrain's."""

_ONCE_IN = timedelta(hours=6)  # for each deployment: the watch starts again and again


def set_up(root: Path, environment: dict[str, str], say: Say) -> None:
    """Make pools, deployments and rules if they do not exist; update the rules if they do.

    Args:
        root: the clone, with prefect.yaml.
        environment: of the programs to start; its PREFECT_API_URL is the server's address.
        say: gets a line if the block for notifications cannot be used.

    Raises:
        UserError: if Prefect does not accept the deployments, with its last lines.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        _make_pools()
        asyncio.run(make_rule())
        try:
            asyncio.run(make_notices(os.environ.get(VARIABLE, "")))
        except UserError as error:
            say(f"warning: {error}; if a flow run cannot begin, no notification is sent")
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        follow(deploy, root, lambda _: None, environment)
    except CommandError as error:
        raise UserError(str(error)) from None


def _make_pools() -> None:
    """Make the work pools that do not exist; the others stay as the user has set them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            wanted = WorkPoolCreate(name=pool, type="process", base_job_template=template)
            try:
                client.create_work_pool(wanted)
            except ObjectAlreadyExists:
                continue


async def make_rule(within: timedelta = timedelta(seconds=HEARTBEAT * DEAD_AFTER)) -> None:
    """Let Prefect declare a flow run crashed if it sends no heartbeat any more.

    A worker that loses its power cannot report that, and a retrain would wait for its run for ever.
    If the rule is there already, it stays as the user has set it, except for the events that count
    as an end: an earlier version of the rule waited for events that do not exist, and so it fired
    for each flow run that had ended.

    Args:
        within: how long a flow run may send no heartbeat.
    """
    from prefect.events.schemas.automations import EventTrigger

    beat = "prefect.flow-run.heartbeat"
    expected = {beat, *(f"prefect.flow-run.{state}" for state in SILENT)}
    found = await _read_rules(_DEAD)
    for rule in found:
        if isinstance(rule.trigger, EventTrigger) and rule.trigger.expect != expected:
            rule.trigger.expect = expected
            await rule.aupdate()
    if not found:
        await _compose_crash_rule(beat, expected, within).acreate()


def _compose_crash_rule(beat: str, expected: set[str], within: timedelta) -> "Automation":
    """The rule: after a heartbeat, another expected event, or the flow run is declared crashed."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return Automation(
        name=_DEAD,
        trigger=EventTrigger(
            after={beat},
            expect=expected,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"{SILENCE} for {within.total_seconds():g} s: the machine or the "
                f"process is gone",
            )
        ],
    )


async def make_notices(slug: str) -> None:
    """Let Prefect's server send a notification where a flow run failed and no code of ours ran.

    Args:
        slug: the block that notifications go through, by type and name; if it is empty, none are
            sent and the rules for them are removed.

    Raises:
        UserError: if Prefect has no such block, or the block sends no notifications.
    """
    from prefect.automations import Automation
    from prefect.events.schemas.automations import EventTrigger
    from prefect.events.schemas.events import ResourceSpecification

    subject, body = "flow.name ~ ' crashed'", "flow_run.name ~ ': ' ~ flow_run.state.message"
    action = await make_server_action(slug, subject, body) if slug else None
    flows = ResourceSpecification(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(_NOTIFIED)}
    )
    for name, mark in _NOTICES.items():
        found = await _read_rules(name)
        if action is None:
            for rule in found:
                await rule.adelete()
            continue
        for rule in found:
            trigger = rule.trigger
            outdated = isinstance(trigger, EventTrigger) and trigger.match_related != flows
            if rule.actions != [action] or outdated:
                rule.actions = [action]
                if isinstance(trigger, EventTrigger):
                    trigger.match_related = flows
                await rule.aupdate()
        if not found:
            trigger = _compose_failure_trigger(mark, flows)
            await Automation(name=name, trigger=trigger, actions=[action]).acreate()


def _compose_failure_trigger(
    mark: dict[str, str], flows: "ResourceSpecification"
) -> "EventTrigger":
    """The trigger: a flow run with a mark, of one of the flows, has failed or crashed."""
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return EventTrigger(
        expect={"prefect.flow-run.Crashed", "prefect.flow-run.Failed"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*", **mark}),
        match_related=flows,
        for_each={"related:deployment:prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=_ONCE_IN,
    )


async def _read_rules(name: str) -> "list[Automation]":
    """The rules of Prefect's server that have a name."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        found = await client.read_automations_by_name(name)
    return [Automation(**rule.model_dump()) for rule in found]
