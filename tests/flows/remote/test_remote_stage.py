"""What pools need is checked before any work; only what one stage made goes to the remote."""

import shutil
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.pipeline.graph import Meta, Stage
from flows.pipeline.run_cache import at_hand, fetch_result, push_result
from flows.remote.remote_stage import check_pools
from flows.snapshots.snapshot import git
from mammo.base.errors import UserError
from tests.support.small_project import command

TRAIN = Stage("train", (), Meta(pool="gpu"), (), (), (), (), True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two stages that have run, and a default remote that is still empty."""
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
    (root / "dvc.yaml").write_text(f"stages:\n{stages}")
    command(root, "dvc", "repro", "-q")
    return root


def test_a_result_comes_back_through_the_remote_and_no_other_stages_does(project: Path) -> None:
    push_result(project, "train")
    lock = (project / "dvc.lock").read_bytes()
    for name in (".dvc/cache", "train", "other"):
        shutil.rmtree(project / name)
    (project / "dvc.lock").unlink()
    assert not at_hand(project, "train")
    fetch_result(project, "train")
    assert at_hand(project, "train")
    assert "is cached" in command(project, "dvc", "repro", "-s", "train").stdout
    assert (project / "train" / "y.txt").read_text() == "train\n"
    assert "other" not in (project / "dvc.lock").read_text()
    command(project, "dvc", "repro", "-q")
    assert (project / "dvc.lock").read_bytes() == lock
    (project / "in.txt").write_text("changed\n")
    with pytest.raises(UserError, match="the worker's run of other is not in the remote"):
        fetch_result(project, "other")


def test_a_changed_dependency_is_not_at_hand(project: Path) -> None:
    assert at_hand(project, "train")
    (project / "in.txt").write_text("changed\n")
    assert not at_hand(project, "train")


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
