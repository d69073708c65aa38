"""mammoflow up, and stages run by a worker in a clone of its own: real servers, real processes.

The project is a toy of shell stages, in three clones of one repository: `worker` has servers and
workers, `parent` retrains through them, `alone` runs each stage itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.imports import ROOT
from tests.support.processes import gone
from tests.support.repositories import init_repository
from tests.support.small_project import command
from tests.support.toys import RUN_STAGES, ask, find_free_port, prefect_database

pytestmark = pytest.mark.timeout(1200)

PATIENCE = 300.0  # seconds

DVC_YAML = """
    stages:
      base:
        cmd: mkdir -p outputs/base && cp in.txt outputs/base/x.txt && cp in.txt outputs/base/y.txt
        deps: [in.txt]
        outs: [outputs/base]
      train:
        cmd: bash train.sh
        deps: [outputs/base/x.txt, train.sh]
        params: [seed]
        outs: [outputs/weights.txt, outputs/many]
        metrics: [outputs/m.json]
        meta: {pool: gpu, time_limit: 120}
      last:
        cmd: cat outputs/weights.txt outputs/many/* > outputs/last.txt
        deps: [outputs/weights.txt, outputs/many]
        outs: [outputs/last.txt]
      fails:
        cmd: bash -c 'echo no such breast >&2; exit 3'
        deps: [in.txt]
        outs: [outputs/fails.txt]
        meta: {pool: gpu}
      crashes:
        cmd: python crash.py
        deps: [in.txt]
        outs: [outputs/crashes.txt]
        meta: {pool: gpu}
      sleeps:
        cmd: bash -c 'sleep 1000 & echo $! > $TOY/pid.partial; mv $TOY/pid.partial $TOY/pid; wait'
        deps: [in.txt]
        outs: [outputs/sleeps.txt]
        meta: {pool: gpu}
      orphaned:
        cmd: bash orphaned.sh
        deps: [in.txt]
        outs: [outputs/orphaned.txt]
        meta: {pool: gpu}
"""
ORPHANED = """
    echo $$ > $TOY/orphaned.partial; mv $TOY/orphaned.partial $TOY/orphaned
    while [ ! -e $TOY/go-on ]; do sleep 0.1; done
    mkdir -p outputs
    cp in.txt outputs/orphaned.txt
"""
TRAIN = """
    mkdir -p outputs/many
    cat outputs/base/x.txt params.yaml > outputs/weights.txt
    for i in 1 2 3; do echo $i > outputs/many/$i.txt; done
    echo '{"loss": 0.5}' > outputs/m.json
    echo trained in $PWD
"""
CRASH = """
    import psutil

    for process in psutil.Process().parents():
        if "prefect.engine" in process.cmdline():
            process.kill()
"""


@dataclass(frozen=True)
class Toy:
    """The clones, and `mammoflow up` in one of them."""

    folder: Path
    up: "subprocess.Popen[str]"
    said: list[str]  # by mammoflow up, until all was there
    api: str
    env: dict[str, str]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Prefect's answer: to GET, or to POST if there is a body."""
        return ask(self.api, path, body)

    def flow(self, *stages: str) -> "subprocess.Popen[str]":
        """Start a flow in the clone `parent` that runs these stages, those of the pool there."""
        root = self.folder / "parent"
        return subprocess.Popen(
            [sys.executable, str(self.folder / "flow.py"), "gpu", *stages],
            cwd=root,
            env={**self.env, "PYTHONPATH": str(root), "PREFECT_API_URL": self.api},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def process_of(self, run: "subprocess.Popen[str]", name: str) -> int:
        """Wait for a stage of a flow that writes its process's number into a file."""
        file = self.folder / name
        deadline = time.monotonic() + PATIENCE
        while not file.exists() and time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.1)
        return int(file.read_text())

    def start(self, deployment: str) -> str:
        """Start a run of a deployment; return its id."""
        found = self.ask(f"deployments/name/{deployment}")
        state = {"type": "SCHEDULED"}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", {"state": state})["id"])

    def state_at_end(self, run: str) -> dict[str, Any]:
        """Wait for the end of a flow run."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = dict(self.ask(f"flow_runs/{run}")["state"])
            if state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                return state
            time.sleep(0.5)
        raise AssertionError(f"still {state}")


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


def make_clones(folder: Path) -> None:
    origin = folder / "origin"
    origin.mkdir()
    for name in ("flows", "mammo"):
        shutil.copytree(ROOT / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", ".gitignore"):
        shutil.copyfile(ROOT / name, origin / name)
    write(origin / "dvc.yaml", DVC_YAML)
    write(origin / "train.sh", TRAIN)
    write(origin / "orphaned.sh", ORPHANED)
    write(origin / "crash.py", CRASH)
    (origin / "params.yaml").write_text("seed: 1\n")
    (origin / "in.txt").write_text("hello\n")
    write(folder / "flow.py", RUN_STAGES)
    init_repository(origin)
    command(origin, "dvc", "init", "-q")
    command(origin, "dvc", "remote", "add", "-q", "-d", "there", str(folder / "remote"))
    command(origin, "git", "add", "-A")
    command(origin, "git", "commit", "-qm", "a toy")
    for clone in ("worker", "parent", "alone"):
        command(folder, "git", "clone", "-q", str(origin), clone)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("toy")
    make_clones(folder)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "TOY": str(folder)}
    env |= {"DVC_NO_ANALYTICS": "1", "PREFECT_WORKER_QUERY_SECONDS": "2"}
    env |= {"HTTP_PROXY": "http://127.0.0.1:9"}  # leads nowhere; loopback is exempt
    port = find_free_port()
    root = folder / "worker"
    shutil.copytree(prefect_database(), root / ".prefect")
    up = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=root,
        env={**env, "PYTHONPATH": str(root)}
        | {"PREFECT_SERVER_API_PORT": str(port), "MLFLOW_PORT": str(find_free_port())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    try:
        assert up.stdout is not None
        for line in up.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        assert up.poll() is None, "".join(said)
        yield Toy(folder, up, said, f"http://127.0.0.1:{port}/api", env)
    finally:
        up.terminate()
        up.wait(PATIENCE)


def test_up_says_where_servers_and_workers_are(toy: Toy) -> None:
    said = "".join(toy.said)
    assert toy.said[0].startswith("starting MLflow and Prefect")
    assert f"PREFECT_API_URL={toy.api}" in said
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:" in said
    assert "pool cpu" in said
    assert "pool gpu" in said
    assert "looks every 15 minutes" in said


def test_prefect_has_what_prefect_yaml_declares(toy: Toy) -> None:
    retrain = toy.ask("deployments/name/retrain/retrain")
    assert [x["schedule"]["cron"] for x in retrain["schedules"]] == ["0 2 * * *"]
    assert retrain["work_pool_name"] == "cpu"
    assert retrain["global_concurrency_limit"]["limit"] == 1
    assert retrain["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    watch = toy.ask("deployments/name/watch/watch")
    assert [x["schedule"]["cron"] for x in watch["schedules"]] == ["*/15 * * * *"]
    nightly = toy.ask("deployments/name/gc/gc")
    # The one is started when a look finds something, the other when somebody wants it.
    assert [x["active"] for x in (*watch["schedules"], *nightly["schedules"])] == [False, False]
    assert toy.ask("deployments/name/run-stage/gpu")["work_pool_name"] == "gpu"
    form = toy.ask("deployments/name/audit/audit")["parameter_openapi_schema"]
    assert form["required"] == ["version"]
    assert {name: x["type"] for name, x in form["properties"].items()} == {
        "version": "string",
        "quick": "boolean",
    }
    form = toy.ask("deployments/name/promote/promote")["parameter_openapi_schema"]
    assert form["required"] == ["version"]
    assert set(form["properties"]) == {"version", "reason"}
    [rule] = toy.ask("automations/filter", {})
    assert rule["actions"][0]["state"] == "CRASHED"


def test_the_schedule_starts_flow_runs(toy: Toy) -> None:
    deadline = time.monotonic() + PATIENCE
    waiting = {"retrain"}
    while waiting and time.monotonic() < deadline:
        for name in sorted(waiting):
            asked = {"flows": {"name": {"any_": [name]}}}
            if any(run["auto_scheduled"] for run in toy.ask("flow_runs/filter", asked)):
                waiting.remove(name)
        time.sleep(0.5)
    assert waiting == set()


def test_a_stage_in_a_pool_ends_with_the_same_lock_as_without_a_worker(toy: Toy) -> None:
    alone, parent = toy.folder / "alone", toy.folder / "parent"
    command(alone, "dvc", "repro", "last")
    run = toy.flow("base", "train", "last")
    said, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said
    assert f"trained in {toy.folder / 'worker'}/.dvc/tmp/snapshots/" in said
    assert {"base ran", "train ran", "last ran"} <= set(said.splitlines())
    assert (parent / "dvc.lock").read_bytes() == (alone / "dvc.lock").read_bytes()
    for path in ("weights.txt", "last.txt", "m.json", "many/2.txt"):
        assert (parent / "outputs" / path).read_bytes() == (alone / "outputs" / path).read_bytes()
    assert "train" not in command(parent, "dvc", "status").stdout
    # The worker's clone is as it was, but for its cache.
    assert command(toy.folder / "worker", "git", "status", "--porcelain").stdout == ""
    assert not (toy.folder / "worker" / "outputs").exists()
    assert not any((toy.folder / "worker/.dvc/tmp/snapshots").iterdir())


def test_what_is_at_hand_is_not_sent_anywhere(toy: Toy) -> None:
    before = len(toy.ask("flow_runs/filter", {"flows": {"name": {"any_": ["run-stage"]}}}))
    parent = toy.folder / "parent"
    shutil.rmtree(parent / "outputs")
    (parent / "dvc.lock").unlink()
    run = toy.flow("base", "train")
    said, _ = run.communicate(timeout=PATIENCE)
    assert "train cached" in said
    after = len(toy.ask("flow_runs/filter", {"flows": {"name": {"any_": ["run-stage"]}}}))
    assert after == before


def test_a_failed_or_crashed_child_fails_the_task_with_its_last_lines(toy: Toy) -> None:
    run = toy.flow("fails", "crashes")
    said, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    last = said[said.rindex("flows.processes.follow.CommandError") :]
    assert "run-stage/gpu ended as Failed" in last
    assert "no such breast" in last
    # What it said in its last second may be missing.
    assert "run-stage/gpu ended as Crashed: Process exited with status code: -9" in last


def test_cancelling_the_parent_stops_the_childs_process_group(toy: Toy) -> None:
    run = toy.flow("sleeps")
    pid = toy.process_of(run, "pid")
    run.send_signal(signal.SIGTERM)
    assert gone(pid, within=PATIENCE)
    said, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    assert "sleeps ran" not in said
    children = toy.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["sleeps"]}}})
    assert [toy.state_at_end(child["id"])["type"] for child in children] == ["CANCELLED"]


def test_a_killed_worker_is_started_again_and_the_next_run_ends_as_if_nothing_had_been(
    toy: Toy,
) -> None:
    run = toy.flow("orphaned")
    pid = toy.process_of(run, "orphaned")
    [worker] = [
        child for child in psutil.Process(toy.up.pid).children() if "gpu" in child.cmdline()
    ]
    worker.kill()
    assert toy.up.stdout is not None
    assert "worker-gpu ended with status -9: started again" in toy.up.stdout.readline()
    assert gone(pid, within=PATIENCE)
    run.send_signal(signal.SIGTERM)  # Prefect would tell it in five minutes
    run.communicate(timeout=PATIENCE)
    (toy.folder / "go-on").touch()
    again = toy.flow("orphaned")
    said, _ = again.communicate(timeout=PATIENCE)
    assert "orphaned ran" in said, said
    alone, parent = toy.folder / "alone", toy.folder / "parent"
    command(alone, "env", f"TOY={toy.folder}", "dvc", "repro", "--single-item", "orphaned")
    locks = [yaml.safe_load((clone / "dvc.lock").read_text()) for clone in (alone, parent)]
    assert locks[0]["stages"]["orphaned"] == locks[1]["stages"]["orphaned"]


def retrains_of(toy: Toy, commit: str) -> list[dict[str, Any]]:
    asked = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = toy.ask("flow_runs/filter", asked)
    return [run for run in found if run["parameters"].get("commit") == commit]


@contextmanager
def held_back(toy: Toy, deployment: str) -> Iterator[None]:
    """No run of the deployment begins before the end of the block."""
    queue = toy.ask("work_pools/cpu/queues", {"name": "held", "is_paused": True})["name"]
    found = toy.ask(f"deployments/name/{deployment}")
    ask(toy.api, f"deployments/{found['id']}", {"work_queue_name": queue}, method="PATCH")
    try:
        yield
    finally:
        freed = {"is_paused": False}
        ask(toy.api, f"work_pools/cpu/queues/{queue}", freed, method="PATCH")


def test_each_new_snapshot_is_retrained_once_on_its_own_commit(toy: Toy) -> None:
    """One that could not begin is taken up when it can, one that was refused is not."""
    origin, worker = toy.folder / "origin", toy.folder / "worker"
    config = worker / ".dvc" / "config"
    before = config.read_text()
    config.write_text(before + "# a person is at it\n")
    (origin / "in.txt").write_text("new data\n")
    command(origin, "git", "commit", "-qam", "new data")
    commit = command(origin, "git", "rev-parse", "HEAD").stdout.strip()
    with held_back(toy, "retrain/retrain"):  # or it could end before the last of them looks
        for watcher in [toy.start("watch/watch") for _ in range(3)]:
            state = toy.state_at_end(watcher)
            assert state["type"] == "COMPLETED", state["message"]
    [run] = retrains_of(toy, commit)
    assert run["name"] == f"retrain {commit[:7]} by the watch"
    state = toy.state_at_end(run["id"])
    assert state["type"] == "CRASHED"
    assert "not committed: .dvc/config" in state["message"]

    config.write_text(before)
    assert toy.state_at_end(toy.start("watch/watch"))["type"] == "COMPLETED"
    [_, again] = retrains_of(toy, commit)
    # The toy is no classifier: the retrain ends, on that commit, with the settings it lacks.
    state = toy.state_at_end(again["id"])
    assert (state["type"], state["name"]) == ("FAILED", "Refused")
    assert "params.yaml" in state["message"]
    assert command(worker, "git", "rev-parse", "HEAD").stdout.strip() == commit

    state = toy.state_at_end(toy.start("watch/watch"))
    assert "was refused, and another one would be, too: " in state["message"]
    assert len(retrains_of(toy, commit)) == 2


def test_what_is_no_longer_needed_is_removed_by_a_worker(toy: Toy) -> None:
    """The nightly, started by hand; but for folders of the killed nothing is old enough yet."""
    states = [toy.state_at_end(toy.start("gc/gc")) for _ in range(2)]
    assert {state["type"] for state in states} == {"COMPLETED"}
    assert states[-1]["message"] == "everything is still needed"


def test_the_end_of_it_is_the_end_of_every_process(toy: Toy) -> None:
    family = psutil.Process(toy.up.pid).children(recursive=True)
    assert len(family) >= 4
    toy.up.send_signal(signal.SIGINT)
    assert toy.up.wait(PATIENCE) == 0
    assert [process for process in family if process.is_running()] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "tpu"], "there is no pool tpu, only cpu, gpu"),
        (["--workers", "gpu"], "a worker alone needs PREFECT_API_URL"),
    ],
)
def test_a_mistake_is_one_sentence(toy: Toy, arguments: list[str], sentence: str) -> None:
    result = command(
        toy.folder / "alone", sys.executable, "-m", "flows.cli", "up", *arguments, check=False
    )
    assert result.returncode == 2
    assert sentence in result.stdout
