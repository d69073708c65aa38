"""Weights that a training starts from are versioned, noticed, fetched, and part of the record."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flows.audit.provenance import check_lock
from flows.audit.reproduction import run_again
from flows.pipeline.first_weights import ensure_weights, hash_weights, read_tracked_weights
from flows.pipeline.lock_and_cache import read_lock
from flows.pipeline.transfer import pull_deps, push_deps
from flows.snapshots.snapshot import capture, materialise
from mammo.base.errors import UserError
from mammo.base.settings import load_params
from tests.imports import ROOT
from tests.support.repositories import init_repository
from tests.support.small_project import command

FILE = "weights/first.safetensors"
STAGE = {
    "stages": {
        "train": {
            "cmd": f"mkdir -p outputs && cp {FILE} outputs/trained",
            "deps": ["weights"],
            "outs": ["outputs/trained"],
        }
    }
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to be copied: one stage that starts from weights that DVC tracks, and a remote."""
    root = tmp_path_factory.mktemp("original") / "project"
    (root / "weights").mkdir(parents=True)
    shutil.copyfile(ROOT / "weights/.gitkeep", root / "weights/.gitkeep")
    (root / FILE).write_text("one")
    (root / "data").mkdir()
    (root / "data/train.csv").write_text("patient_id\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump(STAGE))
    (root / ".gitignore").write_text("/outputs/\n")
    init_repository(root)
    command(root, "dvc", "init", "-q")
    command(root, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    command(root, "dvc", "add", "-q", FILE, "data")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", "weights to start from")
    return root


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "project", symlinks=True))


def run_and_push(root: Path) -> None:
    command(root, "dvc", "repro", "-q")
    command(root, "dvc", "push", "-q")


def lock_hash(root: Path) -> str:
    (dep,) = yaml.safe_load((root / "dvc.lock").read_text())["stages"]["train"]["deps"]
    return str(dep["md5"])


def test_the_hash_of_the_folder_is_dvcs_with_and_without_the_files(project: Path) -> None:
    run_and_push(project)
    assert hash_weights(project) == lock_hash(project)
    (project / FILE).unlink()
    assert hash_weights(project) == lock_hash(project)


def test_another_file_is_noticed_by_dvc_and_refused_until_it_is_versioned(project: Path) -> None:
    run_and_push(project)
    (project / FILE).write_text("two")
    assert "modified:           weights" in command(project, "dvc", "status").stdout
    with pytest.raises(UserError, match=rf"{FILE} is not what {FILE}.dvc names: run `dvc add"):
        ensure_weights(project, print)
    command(project, "dvc", "add", "-q", FILE)
    ensure_weights(project, print)
    with pytest.raises(UserError, match=rf"not committed: {FILE}.dvc"):
        capture(project)


def test_a_file_that_nobody_tracks_is_no_snapshot(project: Path) -> None:
    (project / "weights/other.safetensors").write_text("three")
    with pytest.raises(UserError, match=r"weights/other\.safetensors.*`dvc add` each file"):
        capture(project)


def test_a_file_that_lost_its_dvc_file_is_named_though_git_ignores_it(project: Path) -> None:
    (project / f"{FILE}.dvc").unlink()
    with pytest.raises(UserError, match=rf"{FILE} is not versioned: `dvc add {FILE}`"):
        ensure_weights(project, print)


def test_absent_weights_come_from_the_cache_or_the_remote(project: Path) -> None:
    run_and_push(project)
    for gone in (project / FILE, project / ".dvc/cache"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        (project / FILE).unlink(missing_ok=True)
        ensure_weights(project, print)
        assert (project / FILE).read_text() == "one"


def test_weights_that_lie_there_are_put_into_the_cache(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    said: list[str] = []
    ensure_weights(project, said.append)
    assert said == [f"putting {FILE} into DVC's cache"]
    (project / FILE).unlink()
    command(project, "dvc", "checkout", "-q", f"{FILE}.dvc")
    assert (project / FILE).read_text() == "one"


def test_weights_that_cannot_be_had_are_named_with_the_reason(project: Path) -> None:
    (project / FILE).unlink()
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(UserError, match=rf"(?s){FILE}: cannot be obtained .*run `dvc push {FILE}`"):
        ensure_weights(project, print)


def test_an_audit_in_another_clone_starts_from_them(project: Path, tmp_path: Path) -> None:
    run_and_push(project)
    command(project, "git", "add", "-A")
    command(project, "git", "commit", "-qm", "trained")
    clone = tmp_path / "clone"
    command(tmp_path, "git", "clone", "-q", str(project), str(clone))
    snapshot = capture(clone)
    with materialise(clone, snapshot) as folder:
        assert list(check_lock(folder, snapshot, read_lock(snapshot))) == []
        run_again(folder, "data", print)
        assert (folder / "outputs/trained").read_text() == "one"
        assert lock_hash(folder) == lock_hash(project)


def test_a_lock_that_names_other_weights_is_found(project: Path) -> None:
    run_and_push(project)
    snapshot = capture(project)
    lock = snapshot.files["dvc.lock"].replace(lock_hash(project), "0" * 32 + ".dir")
    forged = replace(snapshot, files={**snapshot.files, "dvc.lock": lock})
    with materialise(project, forged) as folder:
        (found,) = check_lock(folder, forged, read_lock(forged))
    assert found.kind == "wrong"
    assert "train read other weights/ than the commit's .dvc files name" in found.sentence


def test_a_worker_gets_them_through_the_remote(project: Path, tmp_path: Path) -> None:
    push_deps(project, "train")
    clone = tmp_path / "worker"
    command(tmp_path, "git", "clone", "-q", str(project), str(clone))
    pull_deps(clone, "train")
    assert (clone / FILE).read_text() == "one"


@pytest.mark.parametrize("content", ["outs: 5", "outs:\n- path: ../../x\n  md5: '1'", "]"])
def test_a_damaged_dvc_file_is_named(project: Path, content: str) -> None:
    (project / f"{FILE}.dvc").write_text(content)
    with pytest.raises(UserError, match=rf"{FILE}\.dvc: "):
        read_tracked_weights(project)


@pytest.mark.parametrize("key", ["detector", "classifier"])
@pytest.mark.parametrize(
    "value", ["/srv/w.safetensors", "weights/../w.safetensors", "weights/w.pt"]
)
def test_a_path_elsewhere_is_refused(tmp_path: Path, key: str, value: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[key]["weights"] = "weights/mine-2.safetensors"
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    load_params(path)
    params[key]["weights"] = value
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=rf"{key}\.weights = .* is in no snapshot: put the file"):
        load_params(path)


def test_the_stages_that_may_start_from_weights_depend_on_the_folder() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [name for name, stage in stages.items() if "weights" in stage["deps"]] == [
        "train_detector",
        "tune_classifier",
        "train_classifier",
    ]
