"""A snapshot survives the way into git and back, and changes nothing on the way."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.processes.run_git import git
from flows.snapshots.snapshot import (
    FILES,
    Snapshot,
    capture,
    materialise,
    read_tag,
    tag_exists,
    write_tag,
)
from mammo.base.errors import UserError
from tests.support.repositories import init_repository
from tests.support.small_project import command

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=200)
snapshots = st.builds(
    Snapshot,
    commit=st.text("0123456789abcdef", min_size=40, max_size=40),
    files=st.dictionaries(st.sampled_from(FILES), texts),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with code and the three files."""
    init_repository(tmp_path)
    (tmp_path / "mammo").mkdir()
    (tmp_path / "mammo" / "science.py").write_text("ANSWER = 42\n")
    (tmp_path / "README.md").write_text("hello\n")
    for name in FILES:
        (tmp_path / name).write_text(f"{name}: 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


@given(snapshots)
def test_json_round_trip_keeps_the_digest(snapshot: Snapshot) -> None:
    back = Snapshot.from_json(snapshot.to_json())
    assert back == snapshot
    assert back.digest == snapshot.digest


@given(snapshots, snapshots)
def test_equal_digests_mean_equal_snapshots(one: Snapshot, other: Snapshot) -> None:
    assert (one.digest == other.digest) == (one == other)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.sampled_from(FILES), texts, min_size=3))
def test_a_tag_holds_exactly_the_snapshot(project: Path, files: dict[str, str]) -> None:
    snapshot = Snapshot(git(project, "rev-parse", "HEAD"), files)
    tag = f"model/{snapshot.digest}"
    if not tag_exists(project, tag):
        write_tag(project, snapshot, tag, "made")
    assert read_tag(project, tag) == snapshot
    changed = git(project, "diff", "--name-only", "HEAD", tag).splitlines()
    assert set(changed) <= set(FILES)


def test_capture_takes_uncommitted_settings_as_they_stand(project: Path) -> None:
    (project / "params.yaml").write_bytes(b"seed: 2\r\n")
    snapshot = capture(project)
    assert snapshot.files["params.yaml"] == "seed: 2\r\n"
    assert snapshot.commit == git(project, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["mammo/science.py", "mammo/new.py", "dvc.yaml"])
def test_capture_refuses_code_that_is_not_committed(project: Path, name: str) -> None:
    (project / name).write_text("changed\n")
    with pytest.raises(UserError, match=f"not committed: {name}"):
        capture(project)


def test_prose_may_be_uncommitted(project: Path) -> None:
    (project / "README.md").write_text("changed\n")
    capture(project)


def test_tagging_touches_neither_branch_nor_index_nor_working_tree(project: Path) -> None:
    (project / "params.yaml").write_text("seed: 3\n")
    before = (
        git(project, "status", "--porcelain"),
        git(project, "rev-parse", "main"),
        git(project, "ls-files", "--stage"),
    )
    write_tag(project, capture(project), "model/v1", "made")
    after = (
        git(project, "status", "--porcelain"),
        git(project, "rev-parse", "main"),
        git(project, "ls-files", "--stage"),
    )
    assert before == after


def test_a_tag_is_never_overwritten(project: Path) -> None:
    snapshot = capture(project)
    first = write_tag(project, snapshot, "model/v1", "made")
    with pytest.raises(UserError, match="already exists"):
        write_tag(project, snapshot, "model/v1", "made again")
    assert git(project, "rev-parse", "model/v1") == first


def test_tagging_works_where_git_knows_nobody(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git(project, "config", "--unset", "user.name")
    git(project, "config", "--unset", "user.email")
    git(project, "config", "user.useConfigOnly", "true")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    write_tag(project, capture(project), "model/v1", "made")
    assert git(project, "log", "-1", "--format=%an", "model/v1") == "Mammoflow"


def test_a_missing_tag_is_a_clear_error(project: Path) -> None:
    with pytest.raises(UserError, match="model/v9"):
        read_tag(project, "model/v9")


@pytest.fixture
def dvc_project(project: Path) -> Path:
    """The same with DVC, a cached file and a remote with a relative address."""
    command(project, "dvc", "init", "-q")
    command(project, "dvc", "remote", "add", "-q", "-d", "there", "../there")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "with DVC")
    return project


def test_a_snapshot_materialised_is_exactly_it(dvc_project: Path) -> None:
    (dvc_project / "params.yaml").write_text("changed: 1\n")
    (dvc_project / "data.dvc").unlink()
    snapshot = capture(dvc_project)
    (dvc_project / "params.yaml").write_text("changed: 2\n")
    with materialise(dvc_project, snapshot) as folder:
        assert (folder / "params.yaml").read_text() == "changed: 1\n"
        assert not (folder / "data.dvc").exists()
        assert (folder / "mammo" / "science.py").read_text() == "ANSWER = 42\n"
        assert capture(folder) == snapshot


def test_cache_and_remotes_are_shared(dvc_project: Path) -> None:
    with materialise(dvc_project, capture(dvc_project)) as folder:
        cache = command(folder, "dvc", "cache", "dir").stdout.strip()
        assert Path(cache) == dvc_project / ".dvc" / "cache"
        remotes = command(folder, "dvc", "remote", "list").stdout.split()
        assert remotes[:2] == ["there", str(dvc_project.parent / "there")]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_of_it_is_left_and_nothing_of_the_project_changed(
    dvc_project: Path, error: type[BaseException] | None
) -> None:
    (dvc_project / "README.md").write_text("not committed\n")
    before = git(dvc_project, "status", "--porcelain"), git(dvc_project, "branch", "-a")
    seen = []
    with (
        contextlib.suppress(RuntimeError, KeyboardInterrupt),
        materialise(dvc_project, capture(dvc_project)) as folder,
    ):
        seen.append(folder)
        (folder / "more").mkdir()
        (folder / "more" / "output.txt").write_text("x")
        if error is not None:
            raise error
    assert not seen[0].exists()
    assert len(git(dvc_project, "worktree", "list").splitlines()) == 1
    assert (git(dvc_project, "status", "--porcelain"), git(dvc_project, "branch", "-a")) == before


def test_a_commit_that_is_not_there_leaves_nothing(dvc_project: Path) -> None:
    with (
        pytest.raises(UserError, match="git worktree"),
        materialise(dvc_project, Snapshot("0" * 40, {})),
    ):
        raise AssertionError("materialised what is not there")
    assert list((dvc_project / ".dvc" / "tmp" / "snapshots").iterdir()) == []
