"""A worker's clone goes forward to a commit, or it is said why it stays."""

from pathlib import Path

import pytest

from flows.processes.run_git import git
from flows.remote.worker_clone import fast_forward
from mammo.base.errors import UserError
from tests.support.repositories import init_repository
from tests.support.small_project import command


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with the files that matter, and a clone of it beside it."""
    root = tmp_path / "origin"
    root.mkdir()
    init_repository(root)
    for name in ("params.yaml", "dvc.lock", "code.py"):
        (root / name).write_text(f"{name}: 1\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(root), "clone")
    return root


@pytest.fixture
def clone(origin: Path) -> Path:
    return origin.parent / "clone"


def commit(origin: Path, *names: str) -> str:
    for name in names:
        (origin / name).write_text(f"{name}: 2\n")
    git(origin, "commit", "-qam", "second")
    return git(origin, "rev-parse", "HEAD")


def test_a_clean_clone_goes_to_the_commit_and_keeps_its_branch(origin: Path, clone: Path) -> None:
    there = commit(origin, "code.py")
    fast_forward(clone, there)
    assert git(clone, "rev-parse", "main") == there
    assert git(clone, "symbolic-ref", "--short", "HEAD") == "main"
    assert (clone / "code.py").read_text() == "code.py: 2\n"


def test_the_lock_of_the_last_retrain_stays_where_no_commit_changes_it(
    origin: Path, clone: Path
) -> None:
    (clone / "dvc.lock").write_text("written by a retrain\n")
    there = commit(origin, "code.py")
    fast_forward(clone, there)
    assert git(clone, "rev-parse", "HEAD") == there
    assert (clone / "dvc.lock").read_text() == "written by a retrain\n"


def test_the_lock_of_the_last_retrain_gives_way_to_one_that_was_committed(
    origin: Path, clone: Path
) -> None:
    (clone / "dvc.lock").write_text("written by a retrain\n")
    fast_forward(clone, commit(origin, "code.py", "dvc.lock"))
    assert (clone / "dvc.lock").read_text() == "dvc.lock: 2\n"


def test_other_changes_are_never_overwritten(origin: Path, clone: Path) -> None:
    (clone / "params.yaml").write_text("mine\n")
    (clone / "dvc.lock").write_text("written by a retrain\n")
    before = git(clone, "rev-parse", "HEAD")
    with pytest.raises(UserError, match=r"not committed: params\.yaml; commit or discard"):
        fast_forward(clone, commit(origin, "params.yaml"))
    assert git(clone, "rev-parse", "HEAD") == before
    assert (clone / "params.yaml").read_text() == "mine\n"
    assert (clone / "dvc.lock").read_text() == "written by a retrain\n"


def test_a_branch_that_went_elsewhere_stays(origin: Path, clone: Path) -> None:
    (clone / "code.py").write_text("mine\n")
    git(clone, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qam", "mine")
    (clone / "dvc.lock").write_text("written by a retrain\n")
    before = git(clone, "rev-parse", "HEAD")
    with pytest.raises(UserError, match="git merge"):
        fast_forward(clone, commit(origin, "params.yaml"))
    assert git(clone, "rev-parse", "HEAD") == before
    assert (clone / "dvc.lock").read_text() == "written by a retrain\n"


def test_a_clone_that_is_past_the_commit_stays(origin: Path, clone: Path) -> None:
    first = git(origin, "rev-parse", "HEAD")
    second = commit(origin, "code.py")
    fast_forward(clone, second)
    fast_forward(clone, first)
    assert git(clone, "rev-parse", "HEAD") == second


def test_data_are_brought_to_the_commit_as_well(origin: Path, clone: Path) -> None:
    command(origin, "dvc", "init", "-q")
    command(origin, "dvc", "remote", "add", "-q", "-d", "there", str(origin.parent / "remote"))
    (origin / "data").mkdir()
    (origin / "data" / "train.csv").write_text("new\n")
    command(origin, "dvc", "add", "-q", "data")
    command(origin, "dvc", "push", "-q")
    git(origin, "add", "-A")
    there = commit(origin)
    fast_forward(clone, there)
    assert (clone / "data" / "train.csv").read_text() == "new\n"
