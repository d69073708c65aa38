"""What Prefect must know before work can be done: pools, deployments, and when a run is dead."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.notify import VARIABLE
from flows.processes.follow import CommandError, follow
from flows.processes.words import Say
from mammo.base.errors import UserError

POOLS = {"cpu": None, "gpu": 1}
"""The work pools and how many runs a worker takes at once: a GPU trains one network at a time."""

HEARTBEAT = 30  # seconds between two signs of life of a flow run; Prefect allows no less
DEAD_AFTER = 10  # heartbeats; a loaded machine misses some

REFUSED = "Refused"
"""The state of a retrain that failed for a reason in its snapshot: another one would fail, too."""

SILENT = (
    *("Completed", "Failed", REFUSED, "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended"),
)
"""States, by Prefect's names, in which a flow run gives no sign of life and is not dead."""

SILENCE = "no sign of life"
"""How the message of a flow run begins that the rule has set down as crashed."""

_DEAD = "Mammoflow: crash flow runs without a heartbeat"
_NOTICES = {
    # Nobody was there to tell of it: the flow was never loaded, or its machine is gone.
    "Mammoflow: tell of flow runs that could not begin": {"prefect.run-count": "0"},
    "Mammoflow: tell of flow runs that fell silent": {"prefect.state-message": f"{SILENCE}*"},
}
_TOLD = ("retrain", "watch", "promote", "audit", "gc")  # flows; of a stage's run its retrain tells
_ONCE_IN = timedelta(hours=6)  # for a deployment: the watch tries every quarter of an hour


def set_up(root: Path, environment: dict[str, str], say: Say) -> None:
    """Make pools, deployments and rules where they do not exist; mend the rules.

    Args:
        root: the clone, with prefect.yaml.
        environment: of the programs to start; its PREFECT_API_URL is the server's address.
        say: told what is wrong with the block for notifications, if anything is.

    Raises:
        UserError: with Prefect's last lines if it does not take the deployments.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        _make_pools()
        asyncio.run(make_rule())
        try:
            asyncio.run(make_notices(os.environ.get(VARIABLE, "")))
        except UserError as error:
            say(f"warning: {error}: nobody is told of flow runs that could not begin")
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        follow(deploy, root, lambda line: None, environment)
    except CommandError as error:
        raise UserError(str(error)) from None


def _make_pools() -> None:
    """Make the work pools that do not exist; those that do stay as the user has set them."""
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
    """Let Prefect set down as crashed what has stopped giving signs of life.

    A worker that loses its power cannot say so, and a retrain would wait for its run for ever. A
    rule that is there already stays as the user has set it, but for what it takes for an end: an
    earlier one waited for events that do not exist, and so fired at each run that had ended.
    """
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    beat = "prefect.flow-run.heartbeat"
    expected = {beat, *(f"prefect.flow-run.{state}" for state in SILENT)}
    async with get_client() as client:
        found = await client.read_automations_by_name(_DEAD)
    for known in found:
        rule = Automation(**known.model_dump())
        if isinstance(rule.trigger, EventTrigger) and rule.trigger.expect != expected:
            rule.trigger.expect = expected
            await rule.aupdate()
    if found:
        return
    await Automation(
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
    ).acreate()


async def make_notices(slug: str) -> None:
    """Let Prefect's server tell of flow runs that failed where no code of ours runs.

    Args:
        slug: the block that notifications go through, by type and name; empty to tell nobody.

    Raises:
        UserError: if Prefect has no such block, or it sends no notifications.
    """
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    action = await _notice(slug) if slug else None
    flows = ResourceSpecification(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(_TOLD)}
    )
    for name, mark in _NOTICES.items():
        async with get_client() as client:
            found = await client.read_automations_by_name(name)
        for known in found:
            rule = Automation(**known.model_dump())
            if action is None:
                await rule.adelete()
                continue
            trigger = rule.trigger
            fewer = isinstance(trigger, EventTrigger) and trigger.match_related != flows
            if rule.actions != [action] or fewer:
                rule.actions = [action]
                if isinstance(trigger, EventTrigger):
                    trigger.match_related = flows
                await rule.aupdate()
        if found or action is None:
            continue
        await Automation(
            name=name,
            trigger=EventTrigger(
                expect={"prefect.flow-run.Crashed", "prefect.flow-run.Failed"},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*", **mark}),
                match_related=flows,
                for_each={"related:deployment:prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=_ONCE_IN,
            ),
            actions=[action],
        ).acreate()


async def _notice(slug: str) -> Any:
    """The action that sends a notification through a block."""
    from prefect.blocks.core import Block
    from prefect.blocks.notifications import NotificationBlock
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook, SendNotification

    try:
        block: Any = await Block.aload(slug)
    except ValueError as error:
        raise UserError(f"{VARIABLE}={slug}: Prefect has no such block ({error})") from None
    document = block._block_document_id
    assert document is not None
    subject, body = "flow.name ~ ' crashed'", "flow_run.name ~ ': ' ~ flow_run.state.message"
    if isinstance(block, Webhook):
        texts = [f"{{{{ ({text}) | tojson }}}}" for text in (subject, body)]
        payload = f'{{"subject": {texts[0]}, "body": {texts[1]}}}'
        return CallWebhook(block_document_id=document, payload=payload)
    if not isinstance(block, NotificationBlock):
        raise UserError(f"{VARIABLE}={slug}: a {type(block).__name__} sends no notifications")
    return SendNotification(
        block_document_id=document,
        subject=f"{{{{ {subject} }}}}",
        body=f"{{{{ {body} }}}} ({{{{ flow_run | ui_url }}}})",
    )
