"""`mammoflow gc --yes` as a deployment, for every night.

It is the deployment `gc` of prefect.yaml, where its schedule is off until somebody wants it.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed

from flows.notify import notify_failure
from flows.pruning.policy import Policy
from flows.pruning.prune import alone, look, remove
from flows.tracking import registry
from mammo.base.errors import UserError


@flow(
    name="gc",
    flow_run_name="gc",
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def gc(days: float = 30.0, remote: bool = False) -> State[Any]:
    """Remove what is no longer needed in the current folder, and of the servers' records.

    Args:
        days: younger than this nothing goes.
        remote: also on DVC's default remote, which others may share.

    Returns:
        A completed state that says what went; or, where the user can mend what is wrong, a failed
        state that says it.
    """
    root, logger = Path.cwd(), get_run_logger()
    try:
        with alone(root):
            found = look(root, Policy(days, remote))
            for note in found.notes:
                logger.warning(note)
            remove(found, logger.info)
    except UserError as error:
        return Failed(message=str(error))
    except registry.FAULTS as error:
        return Failed(message=registry.describe_fault(error))
    gone = [f"{waste.what}: {waste.count}" for waste in found.wastes if waste.count]
    return Completed(message="; ".join([*gone, *found.notes]) or "everything is still needed")
