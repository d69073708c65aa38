"""`mammoflow gc --yes` as a flow that can run every night.

It is the deployment `gc` of prefect.yaml. Its schedule is not active until a person activates it.
"""

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed

from flows.notify import notify_failure
from flows.pruning.policy import PruningPolicy
from flows.pruning.prune import exclude_others, find_waste, remove
from flows.tracking import registry


@flow(
    name="gc",
    flow_run_name="gc",
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def gc(days: float = 30.0, remote: bool = False) -> State[Any]:
    """Remove what is no longer needed in the current folder and in the servers' records.

    Args:
        days: nothing younger is removed.
        remote: also remove from DVC's default remote, which others may share.

    Returns:
        A completed state that says what was removed; or, where the user can mend what is wrong, a
        failed state that says it.
    """
    root, logger = Path.cwd(), get_run_logger()
    try:
        with exclude_others(root):
            found = find_waste(root, PruningPolicy(days, remote))
            for note in found.notes:
                logger.warning(note)
            remove(found, logger.info)
    except registry.EXPECTED as error:
        return Failed(message=registry.describe_error(error))
    gone = [f"{waste.what}: {waste.count}" for waste in found.wastes if waste.count]
    return Completed(message="; ".join([*gone, *found.notes]) or "everything is still needed")
