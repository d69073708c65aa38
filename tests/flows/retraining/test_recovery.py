"""After whatever cut a retrain short, the next one ends as if nothing had been.

Real processes, killed for real. Each toy goes through several mishaps and one good retrain, whose
dvc.lock is compared with an undisturbed run's.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from flows.processes.folder_lock import only_one
from flows.retraining.recovery import name_workspace, repair_dvc
from flows.snapshots.snapshot import read_tag
from flows.tracking.names import MODEL
from mammo.base.errors import UserError
from tests.support.processes import alive, gone
from tests.support.small_project import list_runs
from tests.support.toys import (
    Retrain,
    environment,
    find_free_port,
    make_toy,
    mlflow_server,
    prefect_server,
    retrain,
    run,
    until,
)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy and an empty MLflow store, whose tables take seconds to make, to be copied."""
    root = tmp_path_factory.mktemp("template") / "toy"
    make_toy(root)
    (root / "mlruns").mkdir()
    registry_of(root).search_experiments()
    return root


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """dvc.lock of a run that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed") / "toy"
    shutil.copytree(template, root)
    run(root, "python", "-m", "dvc", "repro")
    return (root / "dvc.lock").read_text()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    port = find_free_port()
    with prefect_server(tmp_path_factory.mktemp("prefect"), port):
        yield {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


@contextmanager
def full_disk(root: Path) -> Iterator[None]:
    """A small disk for outputs/; who may not mount one has a limit for the size of files."""
    outputs = root / "outputs"
    outputs.mkdir(exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(outputs))
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0
    (root / "limit").unlink(missing_ok=True)
    if not mounted:
        (root / "limit").touch()
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(outputs)], check=True)
        (root / "limit").unlink(missing_ok=True)


@dataclass
class Told:
    """What each mishap, and the good retrain after them, told."""

    root: Path
    said: dict[str, str] = field(default_factory=dict)
    orphan: int = 0


@pytest.fixture(scope="module")
def outage(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Told]]:
    """Prefect's server goes while a stage runs and is back after twenty seconds."""
    home = tmp_path_factory.mktemp("outage")
    root, port = home / "toy", find_free_port()
    shutil.copytree(template, root)

    def live_through() -> Told:
        (root / "hold").touch()
        with prefect_server(home / "prefect", port) as kill:
            work = Retrain(root, {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"})
            work.stage()
            kill()
            (root / "hold").unlink()
            time.sleep(20)  # not to wait for anything: it is how long the server is away
            with prefect_server(home / "prefect", port):
                return Told(root, {"outage": work.said()})

    with ThreadPoolExecutor() as pool:
        yield pool.submit(live_through)


@pytest.fixture(scope="module")
def mishaps(
    template: Path,
    outage: Future[Told],  # so that it passes meanwhile
    prefect: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    """One after the other, in one toy."""
    root = tmp_path_factory.mktemp("mishaps") / "toy"
    shutil.copytree(template, root)
    told = Told(root)

    (root / "hold").touch()
    work = Retrain(root, prefect)
    os.kill(work.stage(), 9)
    told.said["stage killed"] = work.said()
    assert work.process.returncode == 1

    work = Retrain(root, prefect)
    told.orphan = work.stage()
    told.said["second"] = retrain(root, prefect, status=1)
    assert alive(told.orphan)
    work.process.kill()
    told.said["flow killed"] = work.said()
    assert gone(told.orphan, within=30)

    (root / "hold").unlink()
    with full_disk(root):
        told.said["disk full"] = retrain(root, prefect, status=1)

    # Our own number: it belongs to a process, but not to the one that took the lock.
    holder = {"pid": os.getpid(), "cmd": "dvc repro --single-item slow"}
    locks = {"write": {str(root / "outputs/slow.bin"): holder}, "read": {}}
    (root / ".dvc/tmp/rwlock").write_text(json.dumps(locks))
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  slow:\n    cmd: bash slow.sh\n    de")
    told.said["good"] = retrain(root, prefect)
    return told


@pytest.fixture(scope="module")
def without_mlflow(
    template: Path, prefect: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Told:
    """MLflow's server dies when everything has run and the model is about to be registered."""
    home = tmp_path_factory.mktemp("unreachable")
    root, port = home / "toy", find_free_port()
    shutil.copytree(template, root)
    told = Told(root)
    env = {
        **prefect,
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    (root / "hold-registration").touch()
    with mlflow_server(root / "mlruns", port) as kill:
        work = Retrain(root, env)
        work.wait_for("registering")
        kill()
        (root / "hold-registration").unlink()
        told.said["unreachable"] = work.said()
        assert work.process.returncode == 1
    told.said["back"] = retrain(root, prefect)  # the same store, without a server
    return told


def registry_of(root: Path) -> MlflowClient:
    uri = f"sqlite:///{root}/mlruns/mlflow.db"
    return MlflowClient(uri, uri)


def assert_one_whole_version(root: Path) -> None:
    client = registry_of(root)
    [version] = client.search_model_versions(f"name = '{MODEL}'")
    assert (str(version.version), version.tags["git_tag"]) == ("1", "model/v1")
    assert str(client.get_model_version_by_alias(MODEL, "champion").version) == "1"
    snapshot = read_tag(root, "model/v1")
    assert snapshot.digest == version.tags["snapshot_digest"]
    # So the next retrain will find that nothing has changed.
    assert snapshot.files["dvc.lock"] == (root / "dvc.lock").read_text()
    assert client.get_run(str(version.run_id)).info.status == "FINISHED"
    assert not [run for run in list_runs(registry_of(root)) if run.info.status == "RUNNING"]


def test_a_killed_stage_fails_the_retrain_and_is_named(mishaps: Told) -> None:
    said = mishaps.said["stage killed"]
    assert "Task run 'slow'" in said, said
    assert "exited with -9" in said, said


def test_a_second_retrain_in_one_folder_ends_with_a_clear_sentence(mishaps: Told) -> None:
    assert "error: another retrain is at work in this folder (process" in mishaps.said["second"]
    assert "Running stage" not in mishaps.said["second"]


def test_a_killed_retrain_leaves_no_stage_behind(mishaps: Told) -> None:
    assert "Running stage 'slow'" in mishaps.said["flow killed"]
    assert not alive(mishaps.orphan)


def test_a_full_disk_is_named_in_the_message(mishaps: Told) -> None:
    said = mishaps.said["disk full"]
    assert "No space left on device" in said or "File size limit exceeded" in said


def test_after_all_of_it_a_retrain_ends_as_if_nothing_had_been(
    mishaps: Told, undisturbed: str
) -> None:
    assert (mishaps.root / "dvc.lock").read_text() == undisturbed
    assert_one_whole_version(mishaps.root)
    for mended in ("DVC's list of locks named processes that have ended", "dvc.lock was cut short"):
        assert mended in mishaps.said["good"]
    # The flow that was killed had its own run and the stage's.
    assert [run.info.status for run in list_runs(registry_of(mishaps.root))].count("KILLED") == 2


def test_without_mlflow_the_outs_stay_and_are_registered_once(
    without_mlflow: Told, undisturbed: str
) -> None:
    said = without_mlflow.said
    assert "Running stage 'last'" in said["unreachable"]
    [error] = [line for line in said["unreachable"].splitlines() if line.startswith("error: ")]
    assert "MLflow at http://127.0.0.1:" in error
    assert error.endswith("once it is back, run this again: every stage that has ended is kept")
    assert "Running stage" not in said["back"]
    assert f"{MODEL} version 1, alias champion" in said["back"]
    assert (without_mlflow.root / "dvc.lock").read_text() == undisturbed
    assert_one_whole_version(without_mlflow.root)


def test_a_run_in_prefect_links_to_its_run_in_mlflow(
    without_mlflow: Told, prefect: dict[str, str]
) -> None:
    url = f"{prefect['PREFECT_API_URL']}/artifacts/latest/filter"
    [link] = httpx.post(url, json={"artifacts": {"key": {"any_": ["mlflow"]}}}).json()
    ids = [run.info.run_id for run in list_runs(registry_of(without_mlflow.root))]
    assert any(f"/runs/{run}" in link["data"] for run in ids)
    assert "by hand" in link["description"]


def test_a_run_survives_twenty_seconds_without_prefects_server(
    outage: Future[Told], undisturbed: str
) -> None:
    told = outage.result()
    assert f"{MODEL} version 1, alias champion" in told.said["outage"]
    assert (told.root / "dvc.lock").read_text() == undisturbed
    assert_one_whole_version(told.root)


REGISTRATION = """
    import json
    import os
    import sys
    from pathlib import Path

    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    import driver
    import mlflow
    from flows.retraining import recovery
    from flows.snapshots import environment, snapshot
    from flows.tracking import names, register, registry, runs
    from mlflow import MlflowClient

    root = Path.cwd()
    say = lambda line: None

    def killed(*_, **__):
        os.kill(os.getpid(), 9)

    def twice(uri, name, tags):
        register_model(uri, name, tags=tags)
        register_model(uri, name, tags=tags)
        killed()

    register_model = mlflow.register_model
    POINTS = {
        "registered": (mlflow, "register_model", killed),
        "tagged in git": (register, "write_tag", killed),
        "given an alias": (MlflowClient, "set_registered_model_alias", killed),
        "marked as whole": (MlflowClient, "set_model_version_tag", killed),
        "told to be done": (runs, "end_run", killed),
        "asked for twice": (mlflow, "register_model", twice),
    }

    def register_until(point, workspace):
        experiment = registry.open_store(root)
        before = snapshot.capture(root)
        run = runs.start_retrain(experiment, before, workspace=workspace)
        runs.log_snapshot(root, run, before, environment.describe_environment())
        setattr(*POINTS[point])
        register.register(root, before, run)
        runs.end_run(run, succeeded=True)

    def look():
        recovery.repair_registry(root, registry.open_store(root), say)
        register.check_next_tag(root)
        client = MlflowClient()
        found = []
        for version in client.search_model_versions(f"name = '{names.MODEL}'"):
            tag = names.name_tag(int(version.version))
            one = {
                "version": int(version.version),
                "whole": version.tags.get("git_tag") == tag,
                "git": snapshot.tag_exists(root, tag)
                and snapshot.read_tag(root, tag) == registry.read_snapshot(version),
                "aliases": client.get_model_version(names.MODEL, version.version).aliases,
                "run": client.get_run(version.run_id).info.status,
            }
            found.append(one)
        running = client.search_runs([registry.open_store(root)], "attributes.status = 'RUNNING'")
        print(json.dumps({"versions": found, "running": len(running)}), flush=True)

    def child(work, *arguments):
        number = os.fork()
        if not number:
            status = 1
            try:
                work(*arguments)
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

    # Opened once for all children: no connection is kept, so that none is shared.
    registry.open_store(root)
    registry.find_latest_version()
    for point in sys.argv[1:]:
        assert child(register_until, point, recovery.name_workspace(root)) == -9
        assert child(look) == 0
    assert child(register_until, "tagged in git", "of another folder") == -9
    assert child(look) == 0
"""

POINTS = {  # a version more after it?
    "registered": 0,
    "tagged in git": 1,
    "given an alias": 1,
    "marked as whole": 1,
    "told to be done": 1,
    "asked for twice": 1,
}


def test_a_registration_cut_short_anywhere_is_completed_or_leaves_nothing(
    template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "toy"
    shutil.copytree(template, root)
    (root / "registration.py").write_text(textwrap.dedent(REGISTRATION))
    lines = run(root, sys.executable, "registration.py", *POINTS).splitlines()
    *repaired, foreign = [json.loads(line) for line in lines if line.startswith('{"versions"')]
    expected = 0
    for (point, more), state in zip(POINTS.items(), repaired, strict=True):
        expected += more
        versions = sorted(state["versions"], key=lambda version: version["version"])
        assert [version["version"] for version in versions] == list(range(1, expected + 1)), point
        assert all(version["whole"] and version["git"] for version in versions), point
        assert all(version["run"] == "FINISHED" for version in versions), point
        assert state["running"] == 0, point
        aliases = [version["aliases"] for version in versions]
        # Nobody is champion before the gate has seen it, the first one neither.
        assert aliases == [[]] * (expected - 1) + [["challenger"]] * (expected > 0), point
    # Another folder's retrain may be at it just now.
    last = max(foreign["versions"], key=lambda version: version["version"])
    assert len(foreign["versions"]) == expected + 1
    assert (last["whole"], last["run"], foreign["running"]) == (False, "RUNNING", 1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of a project as DVC's locks need."""
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    run(tmp_path, "git", "init", "-q")
    return tmp_path


def test_the_lock_of_a_folder_is_let_go_of(project: Path) -> None:
    with only_one(project), pytest.raises(UserError, match=f"process {os.getpid()}"):  # noqa: SIM117
        with only_one(project):
            pass
    with only_one(project):
        pass
    with pytest.raises(UserError, match="no project of DVC"), only_one(project / ".dvc"):
        pass


SERVER = """
import subprocess, sys, time
from flows.retraining.recovery import _end_server_with_us
ended = subprocess.Popen(["true"])  # a zombie is no server
server = subprocess.Popen(["bash", "-c", "sleep 60; :", "uvicorn"], stdout=subprocess.DEVNULL)
_end_server_with_us()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_retrain_takes_prefects_temporary_server_along(tmp_path: Path) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with caller:
        assert caller.stdout is not None
        server = int(caller.stdout.readline())
        assert alive(server)
        caller.kill()
    assert gone(server, within=60)


def test_a_copy_of_a_folder_is_another_workspace(project: Path) -> None:
    name = name_workspace(project)
    assert name_workspace(project) == name
    copy = project / "copy"
    shutil.copytree(project / ".dvc", copy / ".dvc")
    assert name_workspace(copy) != name


def test_locks_of_living_processes_stay(project: Path) -> None:
    locks = project / ".dvc/tmp/rwlock"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        until(lambda: psutil.Process(sleeper.pid).cmdline() == ["sleep", "60"])
        mine = {"pid": sleeper.pid, "cmd": "dvc 60"}
        held = {"write": {"a": mine}, "read": {"b": [mine, mine | {"cmd": "dvc 61"}]}}
        locks.write_text(json.dumps(held))
        repair_dvc(project, print)
        assert json.loads(locks.read_text()) == {"write": {"a": mine}, "read": {"b": [mine]}}
        sleeper.kill()
    repair_dvc(project, print)
    assert json.loads(locks.read_text()) == {"write": {}, "read": {"b": []}}
    locks.write_text('{"write": {')
    repair_dvc(project, print)
    assert not locks.exists()


def test_a_dvc_lock_cut_short_is_the_commits_again(project: Path) -> None:
    lock = project / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages: {}\n")
    repair_dvc(project, print)
    assert lock.read_text() == "schema: '2.0'\nstages: {}\n"
    for name in ("add", "commit"):
        who = ("-c", "user.name=T", "-c", "user.email=t@localhost")
        run(project, "git", *who, name, *(["dvc.lock"] if name == "add" else ["-qm", "lock"]))
    lock.write_text("")
    repair_dvc(project, print)
    assert lock.read_text() == "schema: '2.0'\nstages: {}\n"
