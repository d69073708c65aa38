"""The small project with all of its history, to tamper with."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.small_project import Retrained, store
from tests.support.tampering import KEPT, database, restore


@pytest.fixture(scope="module")
def pristine(leaking: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that a test may tamper with."""
    backup = tmp_path_factory.mktemp("pristine")
    for name in KEPT:
        shutil.copytree(leaking.root / name, backup / name)
    with (
        closing(database(leaking.root)) as live,
        closing(sqlite3.connect(backup / "db")) as copy,
    ):
        live.backup(copy)
    return backup


@pytest.fixture
def root(leaking: Retrained, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, to tamper with."""
    root = leaking.root
    monkeypatch.chdir(root)
    store(root)
    yield root
    for name in KEPT:
        restore(pristine / name, root / name)
    # Into the file as it is: MLflow keeps connections to it.
    with closing(database(root)) as live, closing(sqlite3.connect(pristine / "db")) as copy:
        copy.backup(live)
