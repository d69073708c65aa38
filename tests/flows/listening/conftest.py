"""Exams that the tests of this folder share: phantoms, drawn once; and processes that can die."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mammo.datasets.phantom.draw import write_phantoms
from tests.support.listening import ForkServer, ReceivingNode, receiving


@pytest.fixture(scope="session")
def women(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """The four views of each of two women."""
    folder = tmp_path_factory.mktemp("women") / "data"
    write_phantoms(folder, women=2, seed=3, long_side=160)
    return [sorted(woman.glob("*.dcm")) for woman in sorted((folder / "train_images").iterdir())]


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.end()


@pytest.fixture
def receiver() -> Iterator[ReceivingNode]:
    with receiving() as receiver:
        yield receiver
