"""Notifications through a Prefect block of the user's choice, off by default.

    MAMMOFLOW_NOTIFY=slack-webhook/ops mammoflow retrain

The variable names a block document by type and name. Any notification block of Prefect can be used
(Slack, Teams, mail, a custom webhook ...), and the plain `webhook`, which gets
`{"subject": ..., "body": ...}` as JSON.

To notify of a new kind of event, call `notify` where it happens.
"""

import os
from typing import Any

from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from mammo.base.errors import UserError

VARIABLE = "MAMMOFLOW_NOTIFY"


def notify(subject: str, body: str) -> None:
    """Send a notification, if MAMMOFLOW_NOTIFY is set. A failure to send it is only logged."""
    slug = os.environ.get(VARIABLE)
    if not slug:
        return
    try:
        _send(slug, subject, body)
    except Exception as error:  # noqa: BLE001  (a block may raise anything)
        _find_logger().warning("%s=%s: %r was not sent: %s", VARIABLE, slug, subject, error)


def notify_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  (Prefect passes it by this name)
    """Notify that a flow failed or crashed, and why: a hook for `on_failure` and `on_crashed`."""
    notify(f"{flow.name} {(state.type.value).lower()}", state.message or "no reason was given")


async def make_server_action(slug: str, subject: str, body: str) -> Any:
    """The action by which Prefect's server sends a notification itself.

    Args:
        slug: the block, by type and name.
        subject: an expression of Jinja about `flow` and `flow_run`.
        body: another one.

    Raises:
        UserError: if Prefect has no such block, or the block sends no notifications.
    """
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.events.actions import CallWebhook, SendNotification

    try:
        block: Any = await Block.aload(slug)
    except ValueError as error:
        raise UserError(f"{VARIABLE}={slug}: Prefect has no such block ({error})") from None
    kind, _, name = slug.partition("/")
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, kind, include_secrets=False)
    if isinstance(block, Webhook):
        texts = [f"{{{{ ({text}) | tojson }}}}" for text in (subject, body)]
        payload = f'{{"subject": {texts[0]}, "body": {texts[1]}}}'
        return CallWebhook(block_document_id=document.id, payload=payload)
    if not isinstance(block, NotificationBlock):
        raise UserError(f"{VARIABLE}={slug}: {_describe_unusable(block)}")
    return SendNotification(
        block_document_id=document.id,
        subject=f"{{{{ {subject} }}}}",
        body=f"{{{{ {body} }}}} ({{{{ flow_run | ui_url }}}})",
    )


def _send(slug: str, subject: str, body: str) -> None:
    # Not at the top: it takes half a second, and a retrain without notifications does not need it.
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block
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
        raise TypeError(_describe_unusable(block))


def _describe_unusable(block: Any) -> str:
    return f"a block of the kind {type(block).__name__} sends no notifications"


def _find_logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("mammoflow")
