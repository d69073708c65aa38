"""What people decide: a promotion, the way back, and what is refused in one sentence.

On a made-up project, which no retrain made: two versions of one model, and their scores.
"""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from flows.processes.run_git import git
from flows.snapshots.snapshot import Snapshot, write_tag
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.registry import read_snapshot
from tests.support.promoting import copied_version, record, run
from tests.support.receiver import Receiver
from tests.support.scored_project import make_scored_project
from tests.support.signed_project import make_repository
from tests.support.small_project import store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is champion, version 2 challenger."""
    root = tmp_path_factory.mktemp("decisions") / "project"
    make_repository(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_scored_project(root, unread=0)
        aliases.move("challenger", 2, aliases.AUTOMATIC, "registered")
    return root


@pytest.fixture
def root(
    original: Path, prefect_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy, to decide in."""
    root = Path(shutil.copytree(original, tmp_path / "project"))
    monkeypatch.chdir(root)
    store(root)
    return root


def test_rollback_returns_and_the_aliases_are_listed(root: Path, receiver: Receiver) -> None:
    run("promote", f"{MODEL}@challenger", "--reason", "as agreed")
    result = run("rollback", "--reason", "calls everybody back")
    assert result.exit_code == 0, result.output
    assert aliases.read_current() == {"champion": 1}
    assert receiver.subjects()[-1] == f"{MODEL}: rolled back from version 2 to 1"
    listed = run("aliases").output
    moves = (
        "champion 1 ",
        "challenger 2 ",
        "champion 1 -> 2",
        "champion 2 -> 1",
        "challenger 2 -> none",
        "previous 1 -> none",
    )
    for words in (*moves, "agreed", "everybody", "Tester", "champion is version 1"):
        assert words in listed
    assert "warning" not in listed
    MlflowClient().set_registered_model_alias(MODEL, "champion", "2")
    assert "warning: champion is version 2, but the history" in run("aliases").output


def test_weights_that_were_rolled_back_stay_known_after_their_version_was_deleted(
    root: Path,
) -> None:
    assert run("promote", "2", "--reason", "as agreed").exit_code == 0
    run("rollback", "--reason", "recalls too many")
    again = copied_version(2)
    MlflowClient().delete_model_version(MODEL, "2")
    result = run("promote", again)
    assert result.exit_code == 1
    assert "version 2, which has the same weights, was rolled back on" in result.output
    assert aliases.read_current()["champion"] == 1


def test_a_snapshot_that_was_changed_cannot_be_compared(root: Path) -> None:
    before = read_snapshot(MlflowClient().get_model_version(MODEL, "2"))
    params = before.files["params.yaml"] + "# changed\n"
    other = Snapshot(before.commit, {**before.files, "params.yaml": params})
    git(root, "tag", "-d", "model/v2")
    result = run("promote", "2")
    assert "has the git tag model/v2" in " ".join(result.output.split())
    write_tag(root, other, "model/v2", "moved")  # the registry agrees with itself
    result = run("promote", "2")
    assert result.exit_code == 1
    assert "is not the one that it was registered with" in result.output
    record(root, 2, before)
    MlflowClient().set_model_version_tag(MODEL, "2", "snapshot_digest", "0" * 64)
    result = run("promote", "2")
    assert result.exit_code == 1
    assert "is not the one that it was registered with" in result.output
    assert aliases.read_current()["champion"] == 1


def test_a_decision_that_makes_no_sense_is_refused_in_one_sentence(
    root: Path, receiver: Receiver
) -> None:
    cases = {
        ("promote", "1"): "version 1 is the champion already",
        ("promote", "99"): "has no",
        ("promote", "2", "--reason", " "): "the reason is empty",
        ("rollback", "--reason", "why not"): "no `previous` to return to",
    }
    for arguments, sentence in cases.items():
        result = run(*arguments)
        assert result.exit_code == 2
        assert "error: " in result.output
        assert sentence in result.output
        assert "Traceback" not in result.output
    assert aliases.read_current() == {"champion": 1, "challenger": 2}
    assert receiver.subjects() == []  # nothing of the system's has failed


@pytest.mark.parametrize(
    "arguments",
    [("promote", "2"), ("rollback", "--reason", "why not"), ("aliases",), ("audit", "2")],
    ids=" ".join,
)
def test_mlflow_out_of_reach_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    try:
        result = run(*arguments)
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)
    assert result.exit_code == 2
    assert "error: MLflow at http://127.0.0.1:9 failed" in result.output
    assert "Traceback" not in result.output


def test_without_a_name_nobody_decides(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", "/dev/null")
    git(root, "config", "--unset", "user.email")
    result = run("promote", "2", "--reason", "because")
    assert result.exit_code == 2
    assert "git does not know who you are" in result.output
    assert aliases.read_current() == {"champion": 1, "challenger": 2}
