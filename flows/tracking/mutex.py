"""One clone at a time, across all clones that share a registry.

MLflow has no locks. What its database does refuse is a second registered model of the same name, so
that is the lock: whoever makes the model holds it, and removes it when done.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.tracking.registry import MODEL, is_absent

ABANDONED_AFTER = 60.0  # seconds; the work under such a lock takes one or two


@contextmanager
def hold_across_clones(name: str) -> Iterator[None]:
    """Hold a lock of the registry; wait while another clone holds it.

    A holder that was killed leaves the lock behind: it is taken over once nobody else has held it
    for `ABANDONED_AFTER`.

    Args:
        name: of the lock, such as "looks"; MLflow shows it among the models while it is held.
    """
    client = MlflowClient()
    model = f"{MODEL}.{name}.lock"
    held_by, since = None, time.monotonic()
    while not _make(client, model):
        holder = _find_holder(client, model)
        if holder != held_by:
            held_by, since = holder, time.monotonic()
        elif holder is not None and time.monotonic() - since > ABANDONED_AFTER:
            _remove(client, model)
        time.sleep(random.uniform(0.02, 0.2))
    try:
        yield
    finally:
        _remove(client, model)


def _make(client: MlflowClient, model: str) -> bool:
    """Make the model that is the lock; whether it was not there yet."""
    try:
        client.create_registered_model(model, description="Held for a moment by one clone.")
    except MlflowException as error:
        # Absent: it was there when MLflow wanted to make it, and no more when it looked.
        if error.error_code != "RESOURCE_ALREADY_EXISTS" and not is_absent(error):
            raise
        return False
    return True


def _find_holder(client: MlflowClient, model: str) -> int | None:
    """When the present lock was made, by the store's clock in milliseconds, or None without one."""
    try:
        return int(client.get_registered_model(model).creation_timestamp)
    except MlflowException as error:
        if not is_absent(error):
            raise
        return None


def _remove(client: MlflowClient, model: str) -> None:
    try:
        client.delete_registered_model(model)
    except MlflowException as error:
        if not is_absent(error):  # else it was taken over meanwhile, and let go
            raise
