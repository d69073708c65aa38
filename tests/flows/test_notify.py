"""Notifications reach a receiver through blocks of several kinds, and never stop a flow."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.states import Failed
from pydantic import SecretStr

from flows.notify import VARIABLE, notify, notify_failure
from flows.servers.deployments import _NOTIFIED
from tests.imports import ROOT
from tests.support.receiver import Receiver, listening


@pytest.fixture
def receiver(prefect_here: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, and a block `custom-webhook/ops` that leads to it."""
    with listening() as found:
        body = {"subject": "{{subject}}", "body": "{{body}}"}
        block = CustomWebhookNotificationBlock(
            name="ops", url=found.url, json_data=body, headers=None, cookies=None
        )
        block.save("ops", overwrite=True)
        monkeypatch.setenv(VARIABLE, "custom-webhook/ops")
        yield found


def test_no_notification_is_sent_by_default(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    notify("subject", "body")
    assert receiver.received == []


def test_a_custom_webhook_gets_subject_and_body(receiver: Receiver) -> None:
    notify("version 3: promoted", "because")
    assert receiver.received == [{"subject": "version 3: promoted", "body": "because"}]


def test_a_plain_webhook_gets_subject_and_body(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    Webhook(url=SecretStr(receiver.url)).save("plain", overwrite=True)
    monkeypatch.setenv(VARIABLE, "webhook/plain")
    notify("subject", "body")
    assert receiver.received == [{"subject": "subject", "body": "body"}]


def test_what_apprise_serves_gets_title_and_message(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = receiver.url.replace("http:", "json:")
    SlackWebhook(url=SecretStr(url)).save("apprise", overwrite=True)
    monkeypatch.setenv(VARIABLE, "slack-webhook/apprise")
    notify("subject", "body")
    (message,) = receiver.received
    assert (message["title"], message["message"]) == ("subject", "body")


@pytest.mark.parametrize("slug", ["custom-webhook/nobody", "no-such-kind/ops", "secret/ops", "ops"])
def test_a_block_that_cannot_be_used_is_told_in_the_log(
    receiver: Receiver,
    slug: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Secret(value=SecretStr("hidden")).save("ops", overwrite=True)
    monkeypatch.setenv(VARIABLE, slug)
    with caplog.at_level(logging.WARNING):
        notify("subject", "body")
    assert f"{slug}: 'subject' was not sent" in caplog.text
    assert "hidden" not in caplog.text
    assert receiver.received == []


@pytest.mark.parametrize("kind", ["custom-webhook/ops", "slack-webhook/apprise", "webhook/plain"])
def test_a_receiver_that_refuses_is_told_in_the_log_and_the_flow_goes_on(
    receiver: Receiver,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = receiver.url.replace("http:", "json:")
    SlackWebhook(url=SecretStr(url)).save("apprise", overwrite=True)
    Webhook(url=SecretStr(receiver.url)).save("plain", overwrite=True)
    monkeypatch.setenv(VARIABLE, kind)
    receiver.status = 500

    @flow
    def telling() -> str:
        notify("subject", "body")
        return "done"

    with caplog.at_level(logging.WARNING):
        assert telling() == "done"
    assert "'subject' was not sent" in caplog.text
    assert len(receiver.received) == 1


def test_a_flow_that_fails_or_raises_is_told_with_its_reason(receiver: Receiver) -> None:
    @flow(name="retrain", on_failure=[notify_failure])
    def failing(how: str) -> Any:
        if how == "raise":
            raise RuntimeError("no space left")
        return Failed(message="the code is not committed")

    failing("return", return_state=True)
    assert receiver.received == [{"subject": "retrain failed", "body": "the code is not committed"}]
    failing("raise", return_state=True)
    assert "no space left" in receiver.received[1]["body"]


def test_the_server_notifies_of_every_deployment_but_that_of_a_stage() -> None:
    """A failed stage is part of its retrain's notification."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    flows = {deployment["entrypoint"].partition(":")[2] for deployment in deployments}
    assert set(_NOTIFIED) == flows - {"run_requested_stage"}
