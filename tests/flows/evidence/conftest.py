"""A signed project for the tests of this folder, and its export; both are copied, not changed."""

import shutil
from pathlib import Path

import pytest

from flows.evidence.export import export
from flows.evidence.keys import FILE, FOLDER, PASSPHRASE
from flows.tracking.registry import get_version
from tests.support.signed_project import make_signed_project
from tests.support.small_project import store


@pytest.fixture(autouse=True)
def no_key_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is signed with a key of whoever runs the tests."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    for name in (FILE, PASSPHRASE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project, its private keys, and an export of version 2."""
    folder = tmp_path_factory.mktemp("signed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder / "private"))
        make_signed_project(folder / "project")
        export(folder / "project", get_version(2), folder / "export")
    return folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    """A copy of the export, to tamper with."""
    return Path(shutil.copytree(signed / "export", tmp_path / "export"))


@pytest.fixture
def root(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with its private keys, to work in."""
    shutil.copytree(signed / "private", tmp_path / "private")
    root = Path(shutil.copytree(signed / "project", tmp_path / "project"))
    monkeypatch.chdir(root)
    store(root)
    return root
