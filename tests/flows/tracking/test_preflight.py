"""What cannot begin is told at once: exit status 2, one sentence, and nothing was made."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.processes.run_git import git
from flows.tracking import preflight
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.small_project import store

COMMANDS = [
    ("retrain",),
    ("audit", "1"),
    ("audit", "1", "--quick"),
    ("promote", "1"),
    ("rollback", "--reason", "because"),
    ("publish", "1"),
    ("up",),
]
LOOKS = [("audits", "1"), ("aliases",), ("verify", "1"), ("evidence", "sign", "1")]


@pytest.fixture
def root(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with what the preflight looks for; no registry, no server."""
    (project / "dvc.yaml").write_text("stages: {}\n")
    for name in ("params.yaml", "plan.yaml"):
        (project / name).write_text((ROOT / name).read_text())
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a project")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlruns/mlflow.db")
    return project


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(root: Path, *arguments: str) -> str:
    before = {path for path in root.rglob("*") if ".git" not in path.parts}
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert {path for path in root.rglob("*") if ".git" not in path.parts} == before
    return result.output


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_outside_a_project_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    assert "is no project of Mammoflow, it has no dvc.yaml: go to" in refused(tmp_path, *arguments)
    assert time.monotonic() - began < 20  # two, on an idle machine


@pytest.mark.parametrize("arguments", [*COMMANDS[1:-1], *LOOKS], ids=" ".join)
def test_without_a_registry_there_is_nothing_to_look_at(
    root: Path, arguments: tuple[str, ...]
) -> None:
    said = refused(root, *arguments)
    assert "there is no registry" in said
    assert "set MLFLOW_TRACKING_URI to the team's, or begin one with `mammoflow retrain`" in said


@pytest.mark.parametrize("arguments", [*COMMANDS[:-1], *LOOKS], ids=" ".join)
def test_a_registry_that_is_silent_is_named_within_ten_seconds(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("flows.processes.reach.ANSWER", 1.0)  # of six
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    assert f"MLflow at {silent} failed (no answer came in time" in refused(root, *arguments)


def test_the_whole_wait_is_less_than_ten_seconds() -> None:
    from flows.processes.reach import ANSWER, CONNECT

    assert CONNECT + ANSWER < 10


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "postgresql+psycopg2"])
def test_a_database_that_is_away_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://ann:secret@127.0.0.1:9/mlflow")
    said = refused(root, "retrain")
    assert "the registry's database at 127.0.0.1 does not answer" in said
    assert "secret" not in said


def test_code_that_is_not_committed_is_told_before_any_server(root: Path) -> None:
    (root / "mammo" / "science.py").write_text("ANSWER = 43\n")
    assert "the code is not committed: mammo/science.py" in refused(root, "retrain")


def test_settings_that_are_wrong_are_told_before_any_server(root: Path) -> None:
    (root / "params.yaml").write_text("seed: twenty\n")
    assert "params.yaml" in refused(root, "retrain")


def test_a_folder_for_the_report_that_cannot_be_written_is_told_first(root: Path) -> None:
    store(root)
    (root / "taken").write_text("")
    assert "taken/v1: no file can be written there" in refused(
        root, "audit", "1", "--report", "taken/v1"
    )


def test_without_git_there_is_no_project(tmp_path: Path, root: Path) -> None:
    (root / ".git").rename(tmp_path / "away")
    assert "git has no commit in" in refused(root, "retrain")


def test_a_disk_without_room_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MINIMUM", 10**18)
    assert "GB free, and this may take 1000000000.0 GB: free space" in refused(root, "retrain")
    with pytest.raises(UserError, match="free space"):
        preflight.check_disk(root, 5)
