"""Weights of a pretraining belong to the record: noticed, fetched, and made again."""

import shutil
from pathlib import Path

import pytest
import yaml

from flows.audit.provenance import check_lock
from flows.audit.reproduction import compare_stages, run_again
from flows.pipeline.first_weights import ensure_weights, hash_weights, read_tracked_weights
from flows.pipeline.graph import read_pipeline, read_status
from flows.pipeline.lock_and_cache import open_cache, read_lock
from flows.pipeline.pretraining import (
    LOCK,
    PIPELINE,
    SETTINGS,
    read_pretraining,
    read_pretraining_objects,
)
from flows.pipeline.transfer import pull_deps, push_deps
from flows.publishing.publish import _push_objects
from flows.snapshots.snapshot import capture, materialise
from mammo.base.errors import UserError
from tests.flows.pipeline.test_first_weights import lock_hash
from tests.imports import ROOT
from tests.support.repositories import init_repository
from tests.support.small_project import command

FILE, CARD = "weights/backbone.safetensors", "weights/backbone.json"
TRAIN = {
    "cmd": "mkdir -p outputs && cat weights/*.safetensors > outputs/trained || true",
    "deps": ["weights"],
    "outs": ["outputs/trained"],
}
PRETRAIN = {
    "foreach": "${made}",
    "do": {
        "wdir": "..",
        "cmd": f"cat ${{patches.source}}/crops.csv code/learn > {FILE} && echo a card > {CARD}",
        "deps": ["code", "${patches.source}"],
        "params": ["split", {SETTINGS: ["seed"]}],
        "outs": [FILE, {CARD: {"cache": False}}],
    },
}
OFF: dict[str, object] = {"made": [], "seed": 1, "patches": {"source": "pretraining/data"}}


@pytest.fixture(scope="module")
def without_pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing is pretrained."""
    root = tmp_path_factory.mktemp("made") / "project"
    for folder in ("weights", "data", "code", "pretraining/data"):
        (root / folder).mkdir(parents=True)
    shutil.copyfile(ROOT / "weights/.gitkeep", root / "weights/.gitkeep")
    (root / "data/train.csv").write_text("patient_id\n")
    (root / "pretraining/data/crops.csv").write_text("patient_id\n")
    (root / "code/learn").write_text("one")
    (root / "params.yaml").write_text("split: {salt: x}\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": TRAIN}}))
    (root / PIPELINE).write_text(yaml.safe_dump({"stages": {"pretrain": PRETRAIN}}))
    (root / SETTINGS).write_text(yaml.safe_dump(OFF))
    (root / ".gitignore").write_text("/outputs/\n")
    init_repository(root)
    command(root, "dvc", "init", "-q")
    command(root, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    command(root, "dvc", "add", "-q", "data", "pretraining/data")
    commit(root, "nothing is pretrained")
    return root


@pytest.fixture(scope="module")
def pretrained(without_pretraining: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project after a pretraining, and a training that started from it."""
    root = Path(
        shutil.copytree(
            without_pretraining, tmp_path_factory.mktemp("used") / "project", symlinks=True
        )
    )
    (root / SETTINGS).write_text(yaml.safe_dump(OFF | {"made": ["backbone"]}))
    command(root, "dvc", "repro", "-q")  # what the weights follow from comes first
    command(root, "dvc", "push", "-q")
    commit(root, "pretrained")
    return root


@pytest.fixture
def project(pretrained: Path, tmp_path: Path) -> Path:
    shutil.copytree(pretrained.parent / "remote", tmp_path / "remote")
    return Path(shutil.copytree(pretrained, tmp_path / "project", symlinks=True))


def commit(root: Path, message: str) -> None:
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", message)


def change_settings(root: Path, **changes: object) -> None:
    settings = yaml.safe_load((root / SETTINGS).read_text())
    (root / SETTINGS).write_text(yaml.safe_dump(settings | changes))


def test_where_nothing_is_pretrained_dvc_sees_nothing_of_it(without_pretraining: Path) -> None:
    listed = command(
        without_pretraining, "dvc", "stage", "list", "--all", "--name-only"
    ).stdout.split()
    assert set(listed) == {"data.dvc", "pretraining/data.dvc", "train"}
    ensure_weights(without_pretraining, print)
    assert (
        read_tracked_weights(without_pretraining)
        == read_pretraining_objects(without_pretraining)
        == {}
    )


def test_what_was_pretrained_is_tracked_and_its_card_is_gits(project: Path) -> None:
    assert list(read_tracked_weights(project)) == [FILE]
    assert set(read_pretraining_objects(project)) == {"pretraining/data", FILE}
    assert CARD in command(project, "git", "ls-files").stdout
    assert hash_weights(project) == lock_hash(project)
    (project / FILE).unlink()
    assert hash_weights(project) == lock_hash(project)
    shutil.rmtree(project / "pretraining/data")  # which may be missing
    ensure_weights(project, print)
    assert (project / FILE).exists()


def test_the_retrains_own_pipeline_has_not_got_it(project: Path) -> None:
    assert [(stage.name, stage.upstream) for stage in read_pipeline(project)] == [("train", ())]
    change_settings(project, seed=2)
    assert read_status(project) == {}


def test_weights_of_other_settings_and_code_are_refused(project: Path) -> None:
    change_settings(project, seed=2)
    (project / "code/learn").write_text("two")
    complaint = rf"weights/ was pretrained before code, {SETTINGS} changed: run `dvc repro"
    with pytest.raises(UserError, match=complaint):
        ensure_weights(project, print)


def test_a_pretraining_that_was_never_run_is_told(
    without_pretraining: Path, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(without_pretraining, tmp_path / "project", symlinks=True))
    change_settings(project, made=["backbone"])
    with pytest.raises(UserError, match=f"nothing is yet: run `dvc repro {PIPELINE}`"):
        ensure_weights(project, print)


def test_data_that_nobody_versioned_are_refused(project: Path) -> None:
    (project / "pretraining/data.dvc").unlink()
    with pytest.raises(UserError, match=r"patches\.source .* is not versioned: `dvc add`"):
        ensure_weights(project, print)


def test_a_lock_that_is_not_committed_is_no_snapshot(project: Path) -> None:
    (project / LOCK).write_text((project / LOCK).read_text() + "\n")
    with pytest.raises(UserError, match=f"not committed: {LOCK}"):
        capture(project)


def test_an_audit_in_another_clone_goes_back_through_it(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    command(tmp_path, "git", "clone", "-q", str(project), str(clone))
    snapshot = capture(clone)
    with materialise(clone, snapshot) as folder:
        stages = [*read_pretraining(folder), *read_lock(snapshot)]
        assert [stage.name for stage in stages] == [f"{PIPELINE}:pretrain@backbone", "train"]
        assert list(check_lock(folder, snapshot, stages)) == []
        said: list[str] = []
        run_again(folder, "data", said.append)
        assert any(f"Running stage '{PIPELINE}:pretrain@backbone'" in line for line in said)
        found = compare_stages(folder, stages, open_cache(folder), None, print)
    assert {(stage.stage, stage.likeness) for stage in found} == {
        (f"{PIPELINE}:pretrain@backbone", "identical"),
        ("train", "identical"),
    }


def test_weights_of_other_data_are_refused_where_the_data_are_not(project: Path) -> None:
    shutil.rmtree(project / "pretraining/data")
    named = project / "pretraining/data.dvc"
    md5 = read_pretraining_objects(project)["pretraining/data"]
    named.write_text(named.read_text().replace(md5, "f" * 32 + ".dir"))
    with pytest.raises(UserError, match=r"was pretrained before pretraining/data\.dvc changed"):
        ensure_weights(project, print)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed: 1", "seed: 7", f"ran with {SETTINGS}:seed = 7, but"),
        ("path: code", "path: dose", "read dose, which the commit does not hold"),
    ],
)
def test_a_lock_that_does_not_fit_the_commit_is_found(
    project: Path, old: str, new: str, sentence: str
) -> None:
    text = (project / LOCK).read_text()
    assert old in text
    (project / LOCK).write_text(text.replace(old, new))
    commit(project, "forged")
    snapshot = capture(project)
    with materialise(project, snapshot) as folder:
        stages = [*read_pretraining(folder), *read_lock(snapshot)]
        (found,) = check_lock(folder, snapshot, stages)
    assert sentence in found.sentence


def test_a_lock_that_names_other_weights_is_found(project: Path) -> None:
    ours = read_tracked_weights(project)[FILE]
    text = (project / LOCK).read_text()
    (project / LOCK).write_text(text.replace(ours, "f" * 32))
    commit(project, "forged")
    snapshot = capture(project)
    with materialise(project, snapshot) as folder:
        (found,) = check_lock(folder, snapshot, read_lock(snapshot))
    assert "train read other weights/ than" in found.sentence


def test_a_worker_gets_them_through_the_remote(project: Path, tmp_path: Path) -> None:
    push_deps(project, "train")
    clone = tmp_path / "worker"
    command(tmp_path, "git", "clone", "-q", str(project), str(clone))
    pull_deps(clone, "train")
    assert (clone / FILE).read_bytes() == (project / FILE).read_bytes()


def test_what_they_were_made_from_is_published_with_a_version(project: Path) -> None:
    _push_objects(project, capture(project), "the remote")
    data = read_pretraining_objects(project)["pretraining/data"]
    shutil.rmtree(open_cache(project).path(data).parent)  # a clone that took the weights alone
    _push_objects(project, capture(project), "the remote")
    shutil.rmtree(project.parent / "remote")
    with pytest.raises(UserError, match="the remote lacks 1 files of pretraining/data"):
        _push_objects(project, capture(project), "the remote")


@pytest.mark.parametrize("name", [SETTINGS, LOCK])
def test_a_damaged_file_is_named(project: Path, name: str) -> None:
    (project / name).write_text("]")
    with pytest.raises(UserError, match=name):
        read_pretraining(project)
