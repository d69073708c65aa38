"""Whatever is changed in what a version's snapshot hangs on, an audit names the culprit.

That is the registry's tags, the run's copy, the git tag and the commit, and the data in DVC's
cache. On a made-up project, which no retrain made: it is enough for all that an audit asks before
it compares models. Its outs are not in the cache, so an untouched version cannot be judged.
"""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from typer.testing import CliRunner

from flows.cli.app import app
from flows.evidence.keys import FOLDER, make_key
from flows.evidence.ledger import HEAD
from flows.processes.run_git import git
from flows.snapshots.snapshot import capture, read_tag
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG
from tests.support.cached_data import put_data
from tests.support.signed_project import make_repository, register
from tests.support.small_project import store
from tests.support.tampering import (
    assert_caught,
    database,
    flip_a_byte,
    locate_artifact,
    locate_cached,
    quick_audit,
    version,
)
from tests.support.toys import TRAIN

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions, of two settings and two dvc.lock."""
    root = tmp_path_factory.mktemp("records") / "project"
    make_repository(root)
    store(root)
    images = {f"train_images/6/{number}.dcm": f"{number} " * 100 for number in (1, 2)}
    (root / "data.dvc").write_text(put_data(root, {"train.csv": TRAIN.lstrip(), **images}))
    git(root, "commit", "-qam", "data")
    record(root, register(root, "first"))
    for name, old, new in (
        ("params.yaml", "seed: 20", "seed: 21"),
        ("dvc.lock", "a" * 32, "f" * 32),
    ):
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))
    record(root, register(root, "second"))
    git(root, "commit", "-qam", "later")
    return root


def record(root: Path, made: ModelVersion) -> None:
    """Record a version's snapshot where a retrain records it, too."""
    client = MlflowClient()
    for name, text in capture(root).files.items():
        client.log_text(str(made.run_id), text, f"snapshot/{name}")
    client.set_model_version_tag(MODEL, made.version, COMPLETION_TAG, f"model/v{made.version}")


@pytest.fixture
def root(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, to tamper with."""
    root = Path(shutil.copytree(original, tmp_path / "project"))
    monkeypatch.chdir(root)
    store(root)
    return root


def test_of_an_untouched_version_nothing_is_wrong_and_the_outs_are_missed(root: Path) -> None:
    result = quick_audit()
    assert_caught(
        result, 2, "neither DVC's cache nor a remote has weights/start.safetensors, outputs/"
    )
    assert "wrong: " not in result.output


def test_a_changed_stored_snapshot_is_found(root: Path) -> None:
    path = locate_artifact(root, "snapshot/snapshot.json")
    path.write_text(path.read_text().replace("outputs/split", "outputs/splat", 1))
    assert_caught(quick_audit(), 1, "the snapshot stored in MLflow was changed: dvc.lock")


def test_a_stored_snapshot_that_would_write_elsewhere_is_found_and_writes_nothing(
    root: Path,
) -> None:
    path = locate_artifact(root, "snapshot/snapshot.json")
    path.write_text(path.read_text().replace('"params.yaml"', '"../../../../outside"', 1))
    assert_caught(
        quick_audit(), 1, "snapshot.json of the run is not a snapshot any more", "is none of"
    )
    assert not (root / "outside").exists()


def test_a_changed_stored_dvc_lock_is_found(root: Path) -> None:
    path = locate_artifact(root, "snapshot/dvc.lock")
    path.write_text(path.read_text().replace("outputs/split", "outputs/splat", 1))
    assert_caught(quick_audit(), 1, "snapshot/dvc.lock of the run was changed")


def test_a_git_tag_that_was_moved_is_found(root: Path) -> None:
    git(root, "tag", "-f", "model/v1", "model/v2")
    assert_caught(quick_audit(), 1, "the git tag model/v1 was moved: params.yaml, dvc.lock")


def test_a_git_tag_that_was_moved_to_what_is_no_snapshot_is_found(root: Path) -> None:
    git(root, "tag", "-f", "model/v1", "HEAD~1")
    assert_caught(quick_audit(), 1, "the git tag model/v1 was moved")


def test_without_its_git_tag_a_version_cannot_be_judged(root: Path) -> None:
    git(root, "tag", "-d", "model/v1")
    assert_caught(quick_audit(), 2, "has the git tag model/v1", "mammoflow publish 1")


def test_a_changed_digest_of_the_version_is_found(root: Path) -> None:
    MlflowClient().set_model_version_tag(MODEL, "1", "snapshot_digest", "0" * 64)
    assert_caught(quick_audit(), 1, "the version's tag snapshot_digest was changed")


def test_a_label_that_was_flipped_in_the_cache_is_found(root: Path) -> None:
    path = locate_cached(root, read_tag(root, "model/v1"), "data", "train.csv")
    flip_a_byte(path)
    assert_caught(quick_audit(), 1, "other bytes", "data/train.csv")


def test_a_changed_pixel_of_a_dicom_is_found(root: Path) -> None:
    flip_a_byte(locate_cached(root, read_tag(root, "model/v1"), "data", ".dcm"))
    assert_caught(quick_audit(), 1, "other bytes", "data/train_images/", ".dcm")


def test_without_one_of_its_dicoms_a_version_cannot_be_judged(root: Path) -> None:
    locate_cached(root, read_tag(root, "model/v1"), "data", ".dcm").unlink()
    assert_caught(
        quick_audit(), 2, "neither DVC's cache nor a remote has data/train_images/", ".dcm"
    )


def test_without_its_commit_in_the_clone_a_version_cannot_be_judged(root: Path) -> None:
    commit = read_tag(root, "model/v1").commit
    (root / ".git" / "objects" / commit[:2] / commit[2:]).unlink()
    assert_caught(quick_audit(), 2, f"this clone lacks the commit {commit}")


def test_without_cache_and_remote_a_version_cannot_be_judged(root: Path) -> None:
    shutil.rmtree(root / ".dvc" / "cache")
    assert_caught(quick_audit(), 2, "neither DVC's cache nor a remote has data, weights/")


@pytest.mark.parametrize("names", [("snapshot_digest",), ("git_commit", "data_hash", "git_tag")])
def test_without_its_tags_in_mlflow_a_version_cannot_be_judged(
    root: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        MlflowClient().delete_model_version_tag(MODEL, "1", name)
    assert_caught(quick_audit(), 2, f"lacks the tags {', '.join(names)}")


def test_a_run_that_was_deleted_for_good_is_named(root: Path) -> None:
    run = str(version().run_id)
    for table in ("latest_metrics", "metrics", "params", "tags", "inputs", "runs"):
        column = "destination_id" if table == "inputs" else "run_uuid"
        with closing(database(root)) as connection:
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (run,))
            connection.commit()
    result = quick_audit()
    assert result.exit_code == 2
    assert f"MLflow has no run {run}" in result.output


@pytest.mark.parametrize("reference", ["99", "nobody", f"{MODEL}@nobody", "other@champion"])
def test_a_version_that_is_not_there_is_one_sentence(root: Path, reference: str) -> None:
    result = CliRunner().invoke(app, ["audit", reference, "--quick"])
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "Traceback" not in result.output


def test_an_alias_stands_for_its_version(root: Path) -> None:
    MlflowClient().set_registered_model_alias(MODEL, "champion", "2")
    result = CliRunner().invoke(app, ["audit", f"{MODEL}@champion", "--quick"])
    assert f"auditing {MODEL} version 2\n" in result.output


def test_a_record_that_is_damaged_so_that_nothing_can_be_verified_is_no_way_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    make_key(root, "server", "builder", None)
    result = CliRunner().invoke(app, ["evidence", "sign", "1"])
    assert result.exit_code == 0, result.output
    MlflowClient().set_registered_model_tag(MODEL, HEAD, "nothing")
    assert_caught(
        quick_audit(), 2, "the tag evidence_head of mammogram-classifier in MLflow is 'nothing'"
    )
