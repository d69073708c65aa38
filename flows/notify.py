"""Notifications through a Prefect block of the user's choice, off by default.

    MAMMOFLOW_NOTIFY=slack-webhook/ops mammoflow retrain

The variable names a block document by type and name. Any notification block of Prefect will do
(Slack, Teams, mail, a webhook with a body of one's own ...), and the plain `webhook`, which gets
`{"subject": ..., "body": ...}` as JSON.
"""

import os
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.states import State

VARIABLE = "MAMMOFLOW_NOTIFY"


def notify(subject: str, body: str) -> None:
    """Tell whoever listens, if anybody does. What goes wrong is logged and stops nothing."""
    slug = os.environ.get(VARIABLE)
    if not slug:
        return
    try:
        _send(slug, subject, body)
    except Exception as error:  # a block may raise anything, and none of it concerns a model
        _logger().warning("%s=%s: %r was not sent: %s", VARIABLE, slug, subject, error)


def notify_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for flows: tell that one failed or crashed, and why."""
    notify(f"{flow.name} {(state.type.value).lower()}", state.message or "no reason was given")


def _send(slug: str, subject: str, body: str) -> None:
    # Half a second that a retrain without notifications should not wait for.
    from prefect.blocks.core import Block
    from prefect.blocks.notifications import NotificationBlock
    from prefect.blocks.webhook import Webhook
    from prefect.utilities.asyncutils import run_coro_as_sync

    block: Any = Block.load(slug)
    if isinstance(block, Webhook):
        response = run_coro_as_sync(block.call({"subject": subject, "body": body}))
        assert response is not None
        response.raise_for_status()
    elif isinstance(block, NotificationBlock):
        with block.raise_on_failure():
            block.notify(body, subject)  # type: ignore[unused-coroutine]
    else:
        raise TypeError(f"a block of the kind {type(block).__name__} sends no notifications")


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("mammoflow")
