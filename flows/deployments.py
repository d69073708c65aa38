"""What Prefect must know before work can be done: pools, deployments, and when a run is dead."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from flows.process import CommandError, follow
from mammo.errors import UserError

POOLS = {"cpu": None, "gpu": 1}
"""The work pools and how many runs a worker takes at once: a GPU trains one network at a time."""

HEARTBEAT = 30  # seconds between two signs of life of a flow run; Prefect allows no less
DEAD_AFTER = 10  # heartbeats; a loaded machine misses some

SILENT = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
"""States, by Prefect's names, in which a flow run gives no sign of life and is not dead."""

_DEAD = "Mammoflow: crash flow runs without a heartbeat"


def set_up(root: Path, environment: dict[str, str]) -> None:
    """Make pools, deployments and the rule for dead runs where they do not exist; mend the rule.

    Args:
        root: the clone, with prefect.yaml.
        environment: of the programs to start; its PREFECT_API_URL is the server's address.

    Raises:
        UserError: with Prefect's last lines if it does not take the deployments.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        _make_pools()
        asyncio.run(make_rule())
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
                message=f"no sign of life for {within.total_seconds():g} s: the machine or the "
                f"process is gone",
            )
        ],
    ).acreate()
