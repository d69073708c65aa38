"""A small project to tamper with; what a test changes is put back."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.small_project import Retrained, store
from tests.support.tampering import KEPT, database, restore


@pytest.fixture(scope="module")
def pristine(registered: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that a test may tamper with."""
    backup = tmp_path_factory.mktemp("pristine")
    for name in KEPT:
        shutil.copytree(registered.root / name, backup / name)
    with (
        closing(database(registered.root)) as live,
        closing(sqlite3.connect(backup / "db")) as copy,
    ):
        live.backup(copy)
    return backup


@pytest.fixture
def root(registered: Retrained, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, to tamper with."""
    root = registered.root
    monkeypatch.chdir(root)
    store(root)
    yield root
    for name in KEPT:
        restore(pristine / name, root / name)
    # Into the file as it is: MLflow keeps connections to it.
    with closing(database(root)) as live, closing(sqlite3.connect(pristine / "db")) as copy:
        copy.backup(live)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic is not measured: it takes seconds, and is no record of the version."""
    monkeypatch.setattr("flows.tracking.arithmetic.measure", lambda folder: {"matrix product": "0"})
