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

_DEAD = "Mammoflow: crash flow runs without a heartbeat"


def set_up(root: Path, environment: dict[str, str]) -> None:
    """Make pools, deployments and the rule for dead runs where they do not exist.

    Args:
        root: the clone, with prefect.yaml.
        environment: of the programs to start; its PREFECT_API_URL is the server's address.

    Raises:
        UserError: with Prefect's last lines if it does not take the deployments.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        _make_pools()
        asyncio.run(_make_rule())
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


async def _make_rule() -> None:
    """Let Prefect set down as crashed what has stopped giving signs of life.

    A worker that loses its power cannot say so, and a retrain would wait for its run for ever.
    """
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    try:
        await Automation.aread(name=_DEAD)
    except ValueError:
        beat = "prefect.flow-run.heartbeat"
        ends = {
            f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Cancelled", "Crashed")
        }
        rule = Automation(
            name=_DEAD,
            trigger=EventTrigger(
                after={beat},
                expect={beat, *(f"prefect.flow-run.{end}" for end in ends)},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=HEARTBEAT * DEAD_AFTER),
            ),
            actions=[
                ChangeFlowRunState(
                    name=None,
                    force=False,
                    state=StateType.CRASHED,
                    message=f"no sign of life for {HEARTBEAT * DEAD_AFTER} s: the machine or the "
                    f"process is gone",
                )
            ],
        )
        await rule.acreate()
