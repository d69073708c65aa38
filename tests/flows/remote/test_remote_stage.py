"""What pools need is checked before any work; only what one stage made goes to the remote."""

import shutil
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.pipeline.graph import Meta, Stage
from flows.pipeline.lock_and_cache import LockEntry
from flows.pipeline.transfer import is_at_hand, pull_result, push_deps, push_result
from flows.processes.run_git import git
from flows.remote.remote_stage import check_pools
from mammo.base.errors import UserError
from tests.support.small_project import command

TRAIN = Stage("train", (), Meta(pool="gpu"), (), (), (), (), (), True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three stages that have run, and a default remote that is still empty."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    command(root, "dvc", "init", "-q")
    command(root, "dvc", "remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    (root / "in.txt").write_text("hello\n")
    stages = "".join(
        f"  {name}:\n    cmd: mkdir {name} && cp in.txt {name} && echo {name} > {name}/y.txt\n"
        f"    deps: [in.txt]\n    outs: [{name}]\n"
        for name in ("train", "other")
    )
    stages += "  after:\n    cmd: cp train/in.txt after\n    deps: [train]\n    outs: [after]\n"
    (root / "dvc.yaml").write_text(f"stages:\n{stages}")
    command(root, "dvc", "repro", "-q")
    monkeypatch.chdir(root)
    return root


def forget(project: Path) -> None:
    """Let the project be one in which nothing has run."""
    for name in (".dvc/cache", "train", "other"):
        shutil.rmtree(project / name)
    (project / "dvc.lock").unlink()


def test_a_result_comes_back_through_the_remote_and_no_other_stages_does(project: Path) -> None:
    entry = LockEntry.model_validate_json(push_result(project, "train").model_dump_json())
    lock = (project / "dvc.lock").read_bytes()
    forget(project)
    assert not is_at_hand(project, "train")
    pull_result(project, "train", entry)
    assert (project / "train" / "y.txt").read_text() == "train\n"
    assert is_at_hand(project, "train")
    assert "didn't change" in command(project, "dvc", "repro", "-s", "train").stdout
    assert "other" not in (project / "dvc.lock").read_text()
    command(project, "dvc", "repro", "-q")
    assert (project / "dvc.lock").read_bytes() == lock


def test_a_result_that_came_back_is_in_the_run_cache(project: Path) -> None:
    entry = push_result(project, "train")
    forget(project)
    pull_result(project, "train", entry)
    (project / "dvc.lock").unlink()
    shutil.rmtree(project / "train")
    assert is_at_hand(project, "train")
    assert "is cached" in command(project, "dvc", "repro", "-s", "train").stdout


@pytest.mark.parametrize("change", ["input", "command", "outs"])
def test_a_result_of_something_else_is_not_taken_over(project: Path, change: str) -> None:
    entry = push_result(project, "train")
    forget(project)
    if change == "input":
        (project / "in.txt").write_text("changed\n")
    elif change == "command":
        entry = entry.model_copy(update={"cmd": "rm -rf /"})
    else:
        entry = entry.model_copy(update={"outs": []})
    with pytest.raises(UserError, match="the worker"):
        pull_result(project, "train", entry)
    assert not (project / "dvc.lock").exists()
    assert not (project / "train").exists()


def test_outs_that_the_remote_lacks_or_has_otherwise_are_not_taken_over(
    project: Path, tmp_path: Path
) -> None:
    entry = push_result(project, "train")
    forget(project)
    stored = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    [text] = [path for path in stored if path.read_bytes() == b"train\n"]
    text.chmod(0o644)
    text.write_text("forged\n")
    with pytest.raises(
        UserError, match=r"other bytes than the worker's run of train made: train/y"
    ):
        pull_result(project, "train", entry)
    text.unlink()
    with pytest.raises(UserError, match="the same default remote"):
        pull_result(project, "train", entry)
    assert not (project / "dvc.lock").exists()
    text.write_text("train\n")
    pull_result(project, "train", entry)
    assert (project / "train" / "y.txt").read_text() == "train\n"


def test_an_out_that_is_not_cached_cannot_come_back(project: Path) -> None:
    push_deps(project, "train")
    path = project / "dvc.yaml"
    path.write_text(path.read_text().replace("outs: [train]", "outs: [{train: {cache: false}}]"))
    with pytest.raises(UserError, match="cannot hand back train of the stage train"):
        push_deps(project, "train")


def test_a_changed_dependency_is_not_at_hand(project: Path) -> None:
    assert is_at_hand(project, "train")
    (project / "in.txt").write_text("changed\n")
    assert not is_at_hand(project, "train")


def test_what_was_made_before_is_at_hand_again(project: Path) -> None:
    (project / "in.txt").write_text("changed\n")
    command(project, "dvc", "repro", "-q", "-s", "train")
    assert not is_at_hand(project, "after")  # its entry of dvc.lock is that of another train
    command(project, "dvc", "repro", "-q", "-s", "after")
    (project / "in.txt").write_text("hello\n")
    command(project, "dvc", "repro", "-q", "-s", "train")
    assert is_at_hand(project, "after")


def test_a_pool_that_no_stage_wants_is_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"no stage of dvc\.yaml wants the pool tpu, only gpu"):
        check_pools(project, [TRAIN], ["tpu"])


def test_a_pool_needs_a_server(project: Path) -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(UserError, match="set PREFECT_API_URL"),
    ):
        check_pools(project, [TRAIN], ["gpu"])


def test_a_pool_needs_a_remote(project: Path) -> None:
    command(project, "dvc", "remote", "default", "--unset")
    with pytest.raises(UserError, match="dvc remote add -d NAME URL"):
        check_pools(project, [TRAIN], ["gpu"])


def test_without_pools_nothing_is_needed(project: Path) -> None:
    command(project, "dvc", "remote", "default", "--unset")
    check_pools(project, [TRAIN], [])
