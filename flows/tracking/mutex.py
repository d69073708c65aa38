"""One clone at a time, across all clones that share a registry.

MLflow has no locks, but its database refuses a second registered model of the same name. So the
model is the lock: whoever makes it holds the lock, and removes it when done.
"""

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows.tracking.names import MODEL
from flows.tracking.registry import is_absent, read_model_tags

ABANDONED_AFTER = 60.0  # seconds; the work under such a lock takes one or two
_HOLDER = "holder"


@contextmanager
def hold_across_clones(name: str) -> Iterator[None]:
    """Hold a lock of the registry; wait while another clone holds it.

    A holder that was killed leaves the lock behind: it is taken over once nobody else has held it
    for `ABANDONED_AFTER`.

    Args:
        name: of the lock, such as "looks"; MLflow shows it among the models while it is held.
    """
    client = MlflowClient()
    model, own = f"{MODEL}.{name}.lock", secrets.token_hex(8)
    held_by, since = None, time.monotonic()
    while not _make(client, model, own):
        holder = _find_holder(model)
        if holder != held_by:
            held_by, since = holder, time.monotonic()
        elif holder is not None and time.monotonic() - since > ABANDONED_AFTER:
            _remove(client, model, holder)
        time.sleep(random.uniform(0.02, 0.2))
    try:
        yield
    finally:
        _remove(client, model, own)


def _make(client: MlflowClient, model: str, own: str) -> bool:
    """Make the model that is the lock; whether it was not there yet."""
    about = "Held for a moment by one clone."
    try:
        client.create_registered_model(model, tags={_HOLDER: own}, description=about)
    except MlflowException as error:
        # Absent: it was there when MLflow wanted to make it, and no more when it looked.
        if error.error_code != "RESOURCE_ALREADY_EXISTS" and not is_absent(error):
            raise
        return False
    return True


def _find_holder(model: str) -> str | None:
    """Who holds the lock, or None if nobody does."""
    tags = read_model_tags(model)
    return None if tags is None else tags.get(_HOLDER, "")


def _remove(client: MlflowClient, model: str, holder: str) -> None:
    """Let the lock go, if it is still this holder's."""
    if _find_holder(model) != holder:
        return  # it was taken over meanwhile
    try:
        client.delete_registered_model(model)
    except MlflowException as error:
        if not is_absent(error):
            raise
