"""What `mammoflow gc` takes and what it leaves: real git, DVC, MLflow and Prefect."""

import os
import shutil
import sqlite3
import time
from contextlib import chdir, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import mlflow
import pytest
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities import ViewType
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, LogCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.states import Completed, Running
from typer.testing import CliRunner

from flows.cli.app import app
from flows.pipeline.lock_and_cache import open_cache, read_data_out, read_lock
from flows.processes.folder_lock import only_one
from flows.processes.run_git import git, has_commit
from flows.pruning.policy import PruningPolicy, Survey
from flows.pruning.prune import LONG_LOG, exclude_others, find_waste, remove
from flows.pruning.records import _delete, _find_old
from flows.publishing.publish import fetch_objects
from flows.snapshots.snapshot import (
    Snapshot,
    capture,
    make_snapshots_folder,
    materialise,
    read_tag,
    write_tag,
)
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG
from flows.tracking.registry import EXPERIMENT, SNAPSHOT_ARTIFACT, make_snapshot_tags, open_store
from mammo.base.errors import UserError
from mammo.kept.result_store import Store
from tests.support.small_project import store
from tests.support.toys import make_toy, run, until

# Prefect's client in this process: forked children of later tests would not end well.
pytestmark = pytest.mark.whole

OLD = time.time() - 365 * 86_400
TAG = "model/v1"
STAGES = """
stages:
  make:
    cmd: >-
      mkdir -p outputs/many; echo > outputs/many/same;
      date +%s.%N | tee outputs/one.txt > outputs/many/other; echo >> outputs/one.txt
    params: [seed]
    outs: [outputs/one.txt, outputs/many]
"""
GENERATIONS = ("forgotten", "registered", "elsewhere", "current")


@pytest.fixture(scope="module")
def old_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which everything is a year old, with remotes of git and DVC.

    Its stage has run four times. The first result nothing names any more; then come that of a
    registered version, that of a branch which only git's remote has, and the working tree's.
    """
    folder = tmp_path_factory.mktemp("original")
    root = folder / "clone"
    make_toy(root)
    (root / "dvc.yaml").write_text(STAGES)
    # Relative, so that it is right in a copy.
    team = "[core]\n    remote = team\n['remote \"team\"']\n    url = ../../remote\n"
    (root / ".dvc" / "config").write_text(team)
    with (root / ".gitignore").open("a") as file:
        file.write("/checkpoints/\n/.prefect/\n")
    git(root, "commit", "--quiet", "--all", "--message", "a stage that makes another out each time")
    run(folder, "git", "clone", "-q", "--bare", str(root), "origin.git")
    git(root, "remote", "add", "origin", "../origin.git")
    for generation in GENERATIONS:
        with chdir(root), Repo() as repo:  # not as a command: that imports DVC anew, eight times
            repo.reproduce(force=True, run_cache=False)
            repo.push(run_cache=True)
        shutil.copy(root / "dvc.lock", folder / generation)
        if generation == "registered":
            register(root, folder)
        if generation == "elsewhere":
            git(root, "checkout", "--quiet", "-b", generation)
            git(root, "add", "dvc.lock")
            git(root, "commit", "--quiet", "--message", "another's")
            git(root, "push", "--quiet", "origin", generation)
            git(root, "checkout", "--quiet", "main")
            git(root, "branch", "--quiet", "-D", generation)
    for top in (folder / "remote", root / ".dvc" / "cache"):
        for path in top.rglob("*"):
            os.utime(path, (OLD, OLD))
    return folder


def register(root: Path, folder: Path) -> None:
    """A version of the working tree, as a retrain makes it."""
    (root / "mlruns").mkdir()
    client, snapshot = store(root), capture(root)
    experiment = client.create_experiment(EXPERIMENT, f"file://{folder}/artifacts")
    made_by = ended_run(client, experiment)
    ended_run(client, experiment, parent=made_by)
    client.log_text(made_by, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    client.create_registered_model(MODEL)
    tags = {**make_snapshot_tags(snapshot), COMPLETION_TAG: TAG}
    client.create_model_version(MODEL, "file:///nowhere", made_by, tags=tags)
    write_tag(root, snapshot, TAG, "version 1")
    open_store(root)  # mends what MLflow wrote of this folder: that is no work of `mammoflow gc`


def ended_run(
    client: MlflowClient, experiment: str, status: str = "FINISHED", parent: str | None = None
) -> str:
    """A run of a year ago, with an artifact."""
    tags = {"mlflow.parentRunId": parent} if parent else {}
    at = int(OLD * 1000)
    made = str(client.create_run(experiment, start_time=at, tags=tags).info.run_id)
    client.log_text(made, "x" * 1000, "notes.txt")
    if status != "RUNNING":
        client.set_terminated(made, status, end_time=at)
    return made


@pytest.fixture
def root(old_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clone, each test with its own."""
    for name in ("clone", "origin.git", "remote"):
        shutil.copytree(old_original / name, tmp_path / name, symlinks=True)
    root = tmp_path / "clone"
    monkeypatch.chdir(root)
    monkeypatch.setenv("MAMMOFLOW_STORE", str(tmp_path / "results"))
    store(root)
    return root


def named(old_original: Path, root: Path, generation: str) -> set[str]:
    """The hashes that the lock of one of the four results names, its folder's files included."""
    text = (old_original / generation).read_text()
    (stage,) = read_lock(Snapshot("0" * 40, {"dvc.lock": text}))
    return objects_of(old_original, dict(stage.outs))


def objects_of(old_original: Path, outs: dict[str, str]) -> set[str]:
    whole = open_cache(old_original / "clone")
    return {md5 for path, top in outs.items() for _, md5 in whole.objects(path, top)}


def there(top: Path) -> set[str]:
    """The hashes of the objects in DVC's cache or on a remote."""
    files = (top / "files" / "md5").rglob("*")
    return {path.parent.name + path.name for path in files if path.is_file()}


def gc(root: Path, policy: PruningPolicy) -> Survey:
    with exclude_others(root):
        found = find_waste(root, policy)
        remove(found, print)
    return found


def counts(found: Survey) -> dict[str, int]:
    return {waste.what: waste.count for waste in found.wastes if waste.count}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, its size and when it was changed; but for locks, and what git has fetched."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp"} & {*path.relative_to(folder).parts}
    }


def test_what_nothing_names_goes_and_all_that_a_version_branch_or_folder_names_stays(
    old_original: Path, root: Path, tmp_path: Path
) -> None:
    kept = {md5 for name in GENERATIONS[1:] for md5 in named(old_original, root, name)}
    gone = named(old_original, root, "forgotten") - kept
    assert len(gone) == 3  # a file, a folder's list, and of its two files the one that changes
    found = gc(root, PruningPolicy())
    assert counts(found) == {"superseded outs in DVC's cache": 3}
    assert there(tmp_path / "remote") == there(old_original / "remote")  # was not asked for
    assert there(root / ".dvc" / "cache") == there(old_original / "clone" / ".dvc" / "cache") - gone
    found = gc(root, PruningPolicy(remote=True))
    assert counts(found) == {"superseded outs on DVC's remote team": 3}
    assert there(tmp_path / "remote") == there(old_original / "remote") - gone
    assert counts(gc(root, PruningPolicy(remote=True))) == {}
    # What a version needs, as an audit looks for it: in this cache, and from the remote.
    version = read_tag(root, TAG)
    outs = {path: md5 for stage in read_lock(version) for path, md5 in stage.outs.items()}
    needs = objects_of(old_original, {**outs, **dict([read_data_out(version)])})
    assert len(needs) == 6
    assert needs <= there(root / ".dvc" / "cache") & there(tmp_path / "remote")
    shutil.rmtree(root / ".dvc" / "cache")
    with materialise(root, version) as folder:
        fetch_objects(folder, [], print)
    assert needs == there(root / ".dvc" / "cache")


def test_an_entry_of_the_run_cache_goes_with_what_it_names(
    old_original: Path, root: Path, tmp_path: Path
) -> None:
    """Else DVC would take the newest entry of a key for whole, whatever it names."""
    tops = (root / ".dvc" / "cache" / "runs", tmp_path / "remote" / "runs")
    before = [[path for path in top.rglob("*") if path.is_file()] for top in tops]
    gc(root, PruningPolicy(remote=True))
    gone = named(old_original, root, "forgotten") - named(old_original, root, "current")
    for files in before:
        [entry] = [path for path in files if not path.exists()]
        saved = old_original / entry.relative_to(tmp_path)
        assert any(md5 in saved.read_text() for md5 in gone)
        assert len(files) == len(GENERATIONS)


def known_runs() -> list[dict[str, object]]:
    """Every run of MLflow's, and what is known of it."""
    runs = MlflowClient().search_runs(["1"], run_view_type=ViewType.ALL)
    return [run.to_dictionary() for run in runs]


def test_without_yes_nothing_changes_and_the_table_says_what_would_go(
    root: Path, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    runs = known_runs()
    shown = CliRunner().invoke(app, ["gc", "--remote"])
    assert shown.exit_code == 0, shown.output
    assert "superseded outs on DVC's remote team" in shown.output
    assert "`mammoflow gc --yes` removes it" in shown.output
    assert tree(tmp_path) == before
    assert known_runs() == runs
    done = CliRunner().invoke(app, ["gc", "--remote", "--yes"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["gc", "--remote"]).output == "Everything is still needed.\n"


def test_what_is_younger_than_the_policy_says_stays(old_original: Path, root: Path) -> None:
    for path in (root / ".dvc" / "cache").rglob("*"):
        os.utime(path)
    assert counts(gc(root, PruningPolicy(days=1))) == {}
    assert counts(gc(root, PruningPolicy(days=0))) == {"superseded outs in DVC's cache": 3}


def test_a_version_without_its_tag_is_known_by_its_record_in_mlflow(
    old_original: Path, root: Path, tmp_path: Path
) -> None:
    git(root, "tag", "-d", TAG)
    gc(root, PruningPolicy(remote=True))
    assert named(old_original, root, "registered") <= there(root / ".dvc" / "cache")
    assert named(old_original, root, "registered") <= there(tmp_path / "remote")


@pytest.mark.parametrize("missing", ["its list", "its tag and its record"])
def test_where_it_cannot_be_told_what_a_version_needs_no_object_goes(
    old_original: Path, root: Path, tmp_path: Path, missing: str
) -> None:
    if missing == "its list":
        (stage,) = read_lock(read_tag(root, TAG))
        md5 = stage.outs["outputs/many"]
        path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        path.chmod(0o644)
        path.write_text("[]")
    else:
        git(root, "tag", "-d", TAG)
        with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
            database.execute("UPDATE runs SET artifact_uri = 'file:///nowhere'")
            database.commit()
    before = there(root / ".dvc" / "cache")
    found = gc(root, PruningPolicy())
    [note] = found.notes
    assert note.startswith("superseded outs in DVC's cache were left: what version 1 ")
    assert there(root / ".dvc" / "cache") == before
    if missing == "its list":  # the remote has it
        assert gc(root, PruningPolicy(remote=True)).notes == []
        assert named(old_original, root, "registered") <= there(tmp_path / "remote")


def test_a_cache_that_other_clones_may_use_is_left_alone(
    old_original: Path, root: Path, tmp_path: Path
) -> None:
    (root / ".dvc" / "cache").rename(tmp_path / "shared")
    with (root / ".dvc" / "config").open("a") as file:
        file.write("[cache]\n    dir = ../../shared\n")
    [note] = gc(root, PruningPolicy()).notes
    assert note.endswith(f"other clones may use {tmp_path}/shared/files/md5, too")
    assert there(tmp_path / "shared") == there(old_original / "clone" / ".dvc" / "cache")


def test_while_a_retrain_or_an_audit_is_at_work_it_refuses_in_one_sentence(root: Path) -> None:
    with only_one(root):
        refused = CliRunner().invoke(app, ["gc", "--yes"])
    assert refused.exit_code == 2
    assert refused.output == (
        f"error: another retrain is at work in this folder (process {os.getpid()}): wait until it "
        f"has ended, then run this again\n"
    )
    with materialise(root, read_tag(root, TAG)):
        refused = CliRunner().invoke(app, ["gc", "--yes"])
    assert refused.exit_code == 2
    assert refused.output.startswith("error: somebody is at work with a snapshot in ")
    with (
        exclude_others(root),
        pytest.raises(UserError, match=r"^mammoflow gc is at work in this folder \(process"),
        only_one(root),
    ):
        pass


def test_runs_of_which_no_version_came_go_with_their_artifacts_and_rows(
    old_original: Path, root: Path
) -> None:
    client = MlflowClient()
    ours = client.get_experiment_by_name(EXPERIMENT)
    assert ours is not None
    experiment = ours.experiment_id
    kept = {run.info.run_id for run in client.search_runs([experiment])}
    assert len(kept) == 2  # the version's, and its stage's
    failed = ended_run(client, experiment, "FAILED")
    stage = ended_run(client, experiment, "KILLED", parent=failed)
    deleted = ended_run(client, experiment)
    client.delete_run(deleted)
    at_work = ended_run(client, experiment, "RUNNING")
    begun = ended_run(client, experiment, parent=at_work)
    last = str(client.create_run(experiment).info.run_id)
    client.set_terminated(last, "FAILED")
    with mlflow.start_run(run_id=failed):
        model = mlflow.pyfunc.log_model(
            name="model", python_model=str(root / "model.py"), pip_requirements=[]
        )
    client.set_terminated(failed, "FAILED", end_time=int(OLD * 1000))
    found = gc(root, PruningPolicy())
    assert counts(found)["MLflow's runs of which no version came"] == 3
    left = client.search_runs([experiment], run_view_type=ViewType.ALL)
    assert {run.info.run_id for run in left} == {*kept, at_work, begun, last}
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        rows = {id_ for (id_,) in database.execute("SELECT run_uuid FROM runs")}
        assert not rows & {failed, stage, deleted}
        assert database.execute("SELECT count(*) FROM logged_models").fetchone() == (0,)
    gone = [*(old_original / "artifacts").rglob(f"*{model.model_id}*/artifacts")]
    gone += [old_original / "artifacts" / run / "artifacts" for run in (failed, stage, deleted)]
    assert [path for path in gone if path.exists()] == []
    assert all(
        (old_original / "artifacts" / run / "artifacts" / "notes.txt").exists() for run in kept
    )


def test_leavings_of_the_dead_and_what_was_not_used_for_long_go(root: Path, tmp_path: Path) -> None:
    left = make_snapshots_folder(root) / "tmpdead"
    git(root, "worktree", "add", "--quiet", "--detach", str(left), "HEAD")
    results = Store(tmp_path / "results", 10**9)
    for key in ("aa1", "aa2"):
        results.put(key, [], b"x")
    checkpoints = root / "checkpoints" / "train_detector"
    checkpoints.mkdir(parents=True)
    for name in ("old", "new"):
        (checkpoints / name).write_text(name)
    for path in (tmp_path / "results" / "aa" / "1", checkpoints / "old"):
        os.utime(path, (OLD, OLD))
    log = root / ".prefect" / "up" / "prefect.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * LONG_LOG + b"the end")
    with log.open("ab") as program:
        found = gc(root, PruningPolicy())
        program.write(b", and on")
    assert len(counts(found)) == 5
    assert not left.exists()
    assert str(left) not in git(root, "worktree", "list")
    assert results.get("aa1") is None
    assert results.get("aa2") is not None
    assert [path.name for path in checkpoints.iterdir()] == ["new"]
    assert log.stat().st_size < LONG_LOG / 5
    assert log.read_bytes().endswith(b"the end, and on")
    assert log.read_bytes()[:1] == b"x"


def test_dvc_leaves_nothing_of_a_snapshot_outside_of_its_folder(root: Path) -> None:
    """By default it keeps an index in /var/tmp for each folder that it was ever in."""
    with materialise(root, read_tag(root, TAG)) as folder, Repo(str(folder)) as repo:
        assert Path(repo.site_cache_dir).is_relative_to(folder)


def test_git_packs_its_objects_and_forgets_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed = git(root, "commit-tree", "HEAD^{tree}", "-m", "that no branch and no tag has")
    objects = git(root, "count-objects")
    assert "objects that git has not packed" not in counts(gc(root, PruningPolicy()))
    assert git(root, "count-objects") == objects
    monkeypatch.setattr("flows.pruning.prune.MANY", 1)
    assert counts(gc(root, PruningPolicy()))["objects that git has not packed"] > 1
    assert git(root, "count-objects").startswith("1 objects")
    assert has_commit(root, unnamed)


def test_free_space_of_sqlite_files_is_given_back(root: Path) -> None:
    path = root / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE filler (x)")
        database.execute("INSERT INTO filler VALUES (zeroblob(5000000))")
        database.commit()
        size = path.stat().st_size
        database.execute("DROP TABLE filler")
        database.commit()
    assert path.stat().st_size == size
    assert gc(root, PruningPolicy()).wastes[-1].count == 1
    assert path.stat().st_size < size - 4_000_000
    assert MlflowClient().get_model_version(MODEL, "1").run_id


@flow
def nothing() -> None:
    """What the runs are runs of; it never runs itself."""


@flow
def something() -> None:
    """Another."""


def test_flow_runs_that_ended_go_but_for_the_last_of_each_deployment_or_flow(
    prefect_here: None,
) -> None:
    """Other tests have flow runs on the server: only ours are deleted."""

    def ended(of: Flow[[], None], *tags: str) -> UUID:
        made = client.create_flow_run(of, state=Running(), tags=tags).id
        client.set_flow_run_state(made, Completed())
        return made

    with get_client(sync_client=True) as client:
        first, tagged, last = ended(nothing), ended(nothing, "snapshot 0123"), ended(nothing)
        other = ended(something)
        at_work = client.create_flow_run(nothing, state=Running()).id
        ours = {first, tagged, last, other, at_work}
        now = datetime.now(UTC)
        assert not ours & {*_find_old(client, now - timedelta(hours=1))}
        assert ours & {*_find_old(client, now + timedelta(hours=1))} == {first}
        log = {"name": "x", "level": 20, "message": "x", "timestamp": now, "flow_run_id": first}
        client.create_logs([LogCreate.model_validate(log)])
        client.create_artifact(ArtifactCreate(key="x", data="x", flow_run_id=first))
        _delete(client, [first])
        chosen = {"flow_runs": {"id": {"any_": [str(run) for run in ours]}}}
        left = client.request("POST", "/flow_runs/filter", json=chosen).json()
        assert {UUID(run["id"]) for run in left} == ours - {first}
        of_first = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[first]))
        assert client.read_artifacts(artifact_filter=of_first) == []
        logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[first]))
        until(lambda: client.read_logs(log_filter=logs) == [])
