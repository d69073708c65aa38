"""A version goes where other clones can get it, and the registry says where that is."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.audit.audit import _check_cache
from flows.audit.provenance import find_agreed_snapshot
from flows.audit.subject import read_subject
from flows.processes import run_git
from flows.processes.run_git import NoAnswerError, git
from flows.publishing.publish import (
    PUBLISHED,
    _describe_address,
    choose_git_remote,
    describe_publication,
    fetch_objects,
    fetch_tag,
    publish,
    publish_pending,
)
from flows.snapshots.snapshot import capture, materialise, read_tag, write_tag
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG
from flows.tracking.registry import SNAPSHOT_ARTIFACT, get_version, make_snapshot_tags
from mammo.base.errors import UserError
from tests.support.small_project import store
from tests.support.toys import make_toy, run

TAG = "model/v1"


@pytest.fixture(scope="module")
def registered_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A builder's clone with a version, all of it in one folder."""
    folder = tmp_path_factory.mktemp("original")
    root = folder / "builder"
    make_toy(root)
    run(root, "dvc", "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "original")
    (root / "mlruns").mkdir()
    client, snapshot = store(root), capture(root)
    experiment = client.create_experiment("mammoflow", f"file://{folder}/artifacts")
    made_by = client.create_run(experiment).info.run_id
    client.log_text(made_by, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    for name, text in snapshot.files.items():
        client.log_text(made_by, text, f"snapshot/{name}")
    for name, value in make_snapshot_tags(snapshot).items():
        client.set_tag(made_by, name, value)
    client.create_registered_model(MODEL)
    tags = {**make_snapshot_tags(snapshot), COMPLETION_TAG: TAG}
    source = f"{folder}/artifacts/{made_by}/artifacts"
    client.create_model_version(MODEL, source, made_by, tags=tags)
    write_tag(root, snapshot, TAG, "version 1")
    run(folder, "git", "clone", "-q", "--bare", str(root), "origin.git")
    run(folder / "origin.git", "git", "tag", "-d", TAG)
    return folder


@pytest.fixture
def builder(registered_original: Path, tmp_path: Path) -> Path:
    """The builder's clone with remotes of git and DVC, each test with its own."""
    shutil.copytree(registered_original / "builder", tmp_path / "builder", symlinks=True)
    shutil.copytree(registered_original / "origin.git", tmp_path / "origin.git")
    root = tmp_path / "builder"
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(root, "push", "--quiet", "origin", "main")
    (root / ".dvc" / "config").write_text(
        f"[core]\n    remote = team\n['remote \"team\"']\n    url = {tmp_path / 'remote'}\n"
    )
    git(root, "commit", "-qam", "a remote")
    git(root, "push", "--quiet", "--set-upstream", "origin", "main")
    store(root)
    return root


@pytest.fixture
def auditor(builder: Path, tmp_path: Path) -> Path:
    """A clone with a cache of its own, from before the version was published."""
    git(tmp_path, "clone", "-q", str(tmp_path / "origin.git"), "auditor")
    return tmp_path / "auditor"


def said() -> str:
    return get_version(1).tags[PUBLISHED]


def objects(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file() and len(path.name) >= 30}


def test_what_is_published_is_there_and_another_clone_gets_it(
    builder: Path, auditor: Path, tmp_path: Path
) -> None:
    assert fetch_tag(auditor, 1) == (
        f"neither this clone nor a remote of it has the git tag {TAG} (git fetch --quiet --no-prune"
        f" --no-prune-tags --no-recurse-submodules --no-auto-maintenance origin refs/tags/{TAG}:"
        f"refs/tags/{TAG}: fatal: couldn't find remote ref refs/tags/{TAG}): run `mammoflow publish"
        f" 1` in the clone that registered it, then this again"
    )
    found = publish(builder, 1, print)
    assert found.complete
    assert said().startswith(f"yes: git tag {TAG} on origin and data and outs on DVC's remote team")
    assert str(tmp_path) not in said()  # a path of this machine tells others nothing
    assert objects(tmp_path / "remote") == objects(builder / ".dvc" / "cache" / "files")
    assert fetch_tag(auditor, 1) is None
    record: ModelVersion = get_version(1)
    snapshot, findings = find_agreed_snapshot(
        auditor, record, MlflowClient().get_run(str(record.run_id))
    )
    assert findings == []
    assert snapshot == capture_of(builder)
    assert snapshot is not None
    with materialise(auditor, snapshot) as folder:
        fetch_objects(folder, [], print)
    assert objects(auditor / ".dvc" / "cache" / "files") == objects(tmp_path / "remote")


def capture_of(root: Path) -> object:
    """The version's snapshot: of the commit before the remote's."""
    with_remote = capture(root)
    return type(with_remote)(git(root, "rev-parse", "HEAD^"), with_remote.files)


def test_what_went_lost_on_the_remote_goes_there_once_more(builder: Path, tmp_path: Path) -> None:
    assert publish(builder, 1, print).complete
    for path in (tmp_path / "remote").rglob("*"):
        if path.is_file() and not path.name.endswith(".dir"):
            path.unlink()
    git(tmp_path / "origin.git", "tag", "-d", TAG)
    assert publish(builder, 1, print).complete
    assert objects(tmp_path / "remote") == objects(builder / ".dvc" / "cache" / "files")
    assert git(tmp_path / "origin.git", "tag", "--list") == TAG


def test_a_remote_that_lost_what_the_cache_lacks_too_is_named(
    builder: Path, tmp_path: Path
) -> None:
    for path in (builder / ".dvc" / "cache").rglob("*"):
        if path.is_file() and path.stat().st_size == 3_000_000:
            path.unlink()
    found = publish(builder, 1, print)
    assert not found.complete
    assert said() == f"no: {found.sentence}"
    assert found.sentence == (
        "the remote team lacks 1 files of outputs/slow.bin, and so does this cache"
    )
    shutil.rmtree(builder / ".dvc" / "cache")
    assert publish(builder, 1, print).sentence == (
        "this clone's DVC cache lacks data: publish it from the clone that registered it"
    )


def test_a_remote_that_takes_nothing_is_not_one_that_lacks_what_the_cache_lacks(
    builder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "remote" / "files" / "md5"
    store.mkdir(parents=True)
    for prefix in range(256):
        (store / f"{prefix:02x}").symlink_to("nowhere")  # nothing is there or can be put there
    found = publish(builder, 1, print)
    assert not found.complete
    assert found.sentence.startswith("the remote team did not take ")
    assert "data" in found.sentence
    assert "Error: " in found.sentence


def with_unusable_remote(root: Path) -> None:
    """A kind of remote for which nobody has the package: not in the lock, nor in docs/team.md."""
    (root / ".dvc" / "config").write_text(
        "[core]\n    remote = team\n['remote \"team\"']\n    url = hdfs://namenode/dvc\n"
    )


UNUSABLE = (
    "cannot be used from this clone: it takes the package dvc-hdfs: run `uv pip install "
    "--constraint requirements.lock dvc-hdfs`"
)


def test_a_remote_that_takes_a_package_says_which_to_the_builder(builder: Path) -> None:
    with_unusable_remote(builder)
    found = publish(builder, 1, print)
    assert found.sentence == f"the remote team {UNUSABLE}"
    assert said() == f"no: {found.sentence}"


def test_a_remote_that_takes_a_package_says_which_to_the_auditor(builder: Path) -> None:
    with_unusable_remote(builder)
    shutil.rmtree(builder / ".dvc" / "cache")
    (builder / "flows").mkdir(exist_ok=True)  # the folder is an older commit's, with its own code
    for name in ("__init__", "push_objects"):
        (builder / "flows" / f"{name}.py").write_text("raise SystemExit(1)")
    told: list[str] = []
    why = fetch_objects(builder, [], told.append)
    assert why == f"DVC's remote team {UNUSABLE}"
    assert told[-1] == why


def test_a_remote_that_cannot_be_used_from_here_is_no_verdict(builder: Path) -> None:
    """What is wrong with this machine is not written into the record of the version."""
    with_unusable_remote(builder)
    snapshot, version = read_tag(builder, TAG), get_version(1)
    made_by = MlflowClient().get_run(str(version.run_id))
    shutil.rmtree(builder / ".dvc" / "cache")
    with materialise(builder, snapshot) as folder:
        subject = read_subject(builder, folder, version, made_by, snapshot)
        with pytest.raises(UserError) as told:
            _check_cache(subject, quick=True, say=print)
    assert str(told.value) == (
        f"version 1 cannot be audited in this clone: DVC's cache lacks some of its files, and "
        f"DVC's remote team {UNUSABLE}; once that is mended, run this again"
    )


def test_a_remote_of_git_that_is_silent_is_no_verdict(
    auditor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    git(auditor, "remote", "set-url", "origin", "ssh://server/mammoflow.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", str(slow))
    monkeypatch.setattr(run_git, "PATIENCE", 0.5)
    with pytest.raises(NoAnswerError, match=r"did not end within 0\.5 s"):
        fetch_tag(auditor, 1)


def test_a_remote_that_answers_and_lacks_files_is_not_called_unusable(
    builder: Path, tmp_path: Path
) -> None:
    (tmp_path / "remote").mkdir()
    shutil.rmtree(builder / ".dvc" / "cache")
    assert fetch_objects(builder, [], print) == ""


@pytest.mark.parametrize("lacking", ["git", "dvc", "both"])
def test_without_a_remote_it_can_only_be_audited_here(builder: Path, lacking: str) -> None:
    if lacking != "dvc":
        git(builder, "remote", "remove", "origin")
    if lacking != "git":
        (builder / ".dvc" / "config").write_text("")
    found = publish(builder, 1, print)
    assert describe_publication(found).startswith(
        "version 1 is not published: it can only be audited in this clone ("
    )
    assert ("`git remote add origin URL`" in found.sentence) == (lacking != "dvc")
    assert ("`dvc remote add -d NAME URL`" in found.sentence) == (lacking != "git")
    assert "then `mammoflow publish 1`" in found.sentence
    assert publish_pending(builder, print) == []


def test_a_remote_that_was_away_gets_it_the_next_time(builder: Path, tmp_path: Path) -> None:
    (tmp_path / "origin.git").rename(tmp_path / "away")
    assert not publish(builder, 1, print).complete
    assert said().startswith("no: git ls-remote --refs origin")
    [still] = publish_pending(builder, print)
    assert not still.complete
    (tmp_path / "away").rename(tmp_path / "origin.git")
    [found] = publish_pending(builder, print)
    assert found.complete
    assert said().startswith("yes: ")
    assert publish_pending(builder, print) == []


def test_another_registrys_tag_is_not_overwritten(builder: Path, tmp_path: Path) -> None:
    other = git(builder, "rev-parse", "HEAD")
    git(tmp_path / "origin.git", "update-ref", f"refs/tags/{TAG}", other)
    found = publish(builder, 1, print)
    assert f"origin has another {TAG}, of another registry" in found.sentence
    assert git(tmp_path / "origin.git", "rev-parse", TAG) == other


def test_a_clone_without_the_tag_has_nothing_to_publish(builder: Path, auditor: Path) -> None:
    git(auditor, "tag", "-d", TAG) if git(auditor, "tag", "--list") else None
    found = publish(auditor, 1, print)
    assert found.sentence == f"this clone has no git tag {TAG}: publish it from the one that has it"


def test_the_remote_is_the_branchs_then_origin_then_the_first(builder: Path) -> None:
    git(builder, "remote", "add", "another", "https://git.example/x.git")
    assert choose_git_remote(builder) == "origin"
    git(builder, "config", "branch.main.remote", "another")
    assert choose_git_remote(builder) == "another"
    git(builder, "checkout", "--quiet", "--detach")
    assert choose_git_remote(builder) == "origin"
    git(builder, "remote", "remove", "origin")
    assert choose_git_remote(builder) == "another"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://ann:secret@git.example/x.git", " (https://git.example/x.git)"),
        ("git@git.example:x.git", " (git@git.example:x.git)"),
        ("s3://bucket/dvc", " (s3://bucket/dvc)"),
        ("ssh://server/mnt/x", " (ssh://server/mnt/x)"),
        ("/mnt/x", ""),
        ("../x", ""),
        ("file:///mnt/x", ""),
    ],
)
def test_an_address_tells_no_secret_and_no_path_of_this_machine(url: str, told: str) -> None:
    assert _describe_address(url) == told


def test_nothing_is_fetched_without_a_remote(builder: Path) -> None:
    (builder / ".dvc" / "config").write_text("")
    told: list[str] = []
    fetch_objects(builder, [], told.append)
    assert told == []


def test_an_unknown_version_has_no_tag_to_be_had(builder: Path) -> None:
    assert "mammoflow publish 7" in str(fetch_tag(builder, 7))
    with pytest.raises(UserError):
        git(builder, "rev-parse", "--verify", "refs/tags/model/v7")
