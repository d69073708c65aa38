"""Where the notifications of a promotion go."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.webhook import Webhook
from pydantic import SecretStr

from flows.notify import VARIABLE
from tests.support.receiver import Receiver, listening


@pytest.fixture
def receiver(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Gets what is sent while a test works in its project, `root`."""
    with listening() as found:
        Webhook(url=SecretStr(found.url)).save("ops", overwrite=True)
        monkeypatch.setenv(VARIABLE, "webhook/ops")
        yield found
