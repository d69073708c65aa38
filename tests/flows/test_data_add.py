"""New exams come into data/ all at once or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows import data_add
from flows.data_add import add_data
from flows.process import CommandError
from mammo.errors import UserError
from tests.flows.conftest import command
from tests.mammo.test_merging import everything, write_set


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project whose data are two images, committed."""
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    command(root, "dvc", "init", "-q")
    write_set(root / "data", {"1/11": b"one", "2/21": b"two"})
    command(root, "dvc", "add", "-q", "data")
    return root


def state(root: Path) -> tuple[dict[str, bytes], str, list[str]]:
    """All that an attempt may not change if it fails."""
    return (
        everything(root / "data"),
        (root / "data.dvc").read_text(),
        sorted(path.name for path in root.iterdir()),
    )


def test_new_exams_are_added_versioned_and_the_commit_is_named(
    project: Path, tmp_path: Path
) -> None:
    new = write_set(tmp_path / "october", {"3/31": b"three"})
    said = command(project, sys.executable, "-m", "flows.cli", "data", "add", str(new)).stdout
    assert 'git commit -m "data: 1 images of october" data.dvc' in said
    assert (project / "data/train_images/3/31.dcm").read_bytes() == b"three"
    assert "nfiles: 4" in (project / "data.dvc").read_text()
    assert "up to date" in command(project, "dvc", "status", "data.dvc").stdout
    assert sorted(path.name for path in project.glob(".data*")) == []


def test_a_refusal_leaves_everything_as_it_was(project: Path, tmp_path: Path) -> None:
    before = state(project)
    new = write_set(tmp_path / "new", {"3/31": b"three", "3/32": b"two"})
    with pytest.raises(UserError, match="the same bytes"):
        add_data(project, new, print)
    assert state(project) == before


@pytest.mark.parametrize("error", [CommandError("disk on fire"), KeyboardInterrupt()])
def test_an_end_in_the_middle_of_dvc_add_leaves_everything_as_it_was(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = state(project)
    new = write_set(tmp_path / "new", {"3/31": b"three"})

    def end(command: list[str], root: Path, on_line: object) -> None:
        assert (root / "data/train_images/3/31.dcm").exists()
        (root / "data.dvc").write_text("half written")
        raise error

    monkeypatch.setattr(data_add, "follow", end)
    with pytest.raises((UserError, KeyboardInterrupt)):
        add_data(project, new, print)
    assert state(project) == before


def test_data_that_are_not_versioned_are_not_added_to(project: Path, tmp_path: Path) -> None:
    (project / "data" / "notes.txt").write_text("not versioned")
    before = state(project)
    with pytest.raises(UserError, match=r"run `dvc add data`"):
        add_data(project, write_set(tmp_path / "new", {"3/31": b"three"}), print)
    assert state(project) == before
