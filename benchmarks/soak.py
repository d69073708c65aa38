"""Whether a year of it stays level: looks of the watch and retrains in a row, memory and disk.

    python -m benchmarks.soak                              # 500 looks, 20 retrains: an hour or two
    python -m benchmarks.soak --looks 60 --retrains 3      # for a try

`mammoflow up` runs in a clone of a toy whose stages are shell scripts; all else is real. The watch
finds the first commit, as it would: after its retrain there is nothing new, and the looks
that are counted find that. Then retrains are forced, one after the other, and `mammoflow gc --yes
--days 0` takes what they leave. Memory is what each process has for itself (USS), disk what files
take up.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from tests.imports import ROOT
from tests.support.toys import ask, environment, find_free_port, make_toy, run

WARM_UP = 20  # looks before the first measurement: caches fill
PATIENCE = 900.0  # seconds for a flow run
LOOKS = """
import sys
from pathlib import Path
import flows
from flows.retraining.watch_loop import start_if_needed
for line in sys.stdin:
    print(start_if_needed(Path.cwd()), flush=True)
"""  # as `python -m flows.retraining.watch_loop`, but each when it is told to
REGISTER = '''

def log_predictor(root: Path, run: str) -> str:
    """The toy's, of three lines."""
    with mlflow.start_run(run_id=run):
        return str(
            mlflow.pyfunc.log_model(
                name="model", python_model=str(root / "model.py"), pip_requirements=[]
            ).model_uri
        )
'''
FOLDERS = {
    "Prefect's database and logs": (".prefect",),
    "MLflow's database and artifacts": ("mlruns",),
    "DVC's cache and temporary files": (".dvc",),
    "git": (".git",),
}


@dataclass(frozen=True)
class Toy:
    """A clone with `mammoflow up` at work."""

    root: Path
    up: "subprocess.Popen[str]"
    api: str
    env: Mapping[str, str]

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Prefect's answer: to GET, or to POST if there is a body."""
        return ask(self.api, path, body, PATIENCE)

    def until_nothing_runs(self) -> None:
        """Wait until each flow run that was begun has ended, and no new one comes at once."""
        deadline, quiet = time.monotonic() + PATIENCE, 0
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}}
        while quiet < 3:
            begun = [
                one
                for one in self.ask("flow_runs/filter", wanted)
                if not one["auto_scheduled"] or one["state_type"] != "SCHEDULED"
            ]
            quiet = 0 if begun else quiet + 1
            if time.monotonic() > deadline:
                raise SystemExit(f"still at work: {[one['name'] for one in begun]}")
            time.sleep(2)

    def retrain(self) -> str:
        """A forced retrain, to its end; how it ended."""
        deployment = self.ask("deployments/name/retrain/retrain")["id"]
        body = {"parameters": {"force": True}, "state": {"type": "SCHEDULED"}}
        made = self.ask(f"deployments/{deployment}/create_flow_run", body)["id"]
        self.until_nothing_runs()
        state = self.ask(f"flow_runs/{made}")["state"]
        if state["type"] == "COMPLETED":
            return "completed"
        print(f"a retrain ended as {state['name']}: {state['message']}", flush=True)
        return "otherwise"

    def memory(self, looks: int) -> dict[str, float]:
        """MB that each program has for itself, with its children but for flow runs.

        Args:
            looks: the process that looks.
        """
        names = {"server start": "Prefect's server", "mlflow server": "MLflow's server"}
        names |= {"--pool cpu": "worker cpu", "--pool gpu": "worker gpu"}
        found = {"mammoflow up": _own(psutil.Process(self.up.pid))}
        for child in psutil.Process(self.up.pid).children():
            line = " ".join(child.cmdline())
            name = next((name for mark, name in names.items() if mark in line), None)
            if name is not None:
                family = [child, *child.children(recursive=True)]
                found[name] = sum(map(_own, family))
        return found | {"the looks": _own(psutil.Process(looks))}

    def disk(self) -> dict[str, float]:
        """MB of files in the clone."""
        return {
            name: sum(
                _measure(file) for folder in folders for file in (self.root / folder).rglob("*")
            )
            / 1e6
            for name, folders in FOLDERS.items()
        }


def main(
    looks: Annotated[int, typer.Option(min=1)] = 500,
    retrains: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Print what was there before and after, and what that makes for a hundred looks."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, start(Path(scratch)) as toy:
        looker = subprocess.Popen(
            [sys.executable, "-c", LOOKS],
            cwd=toy.root,
            env=toy.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            print(f"the first look: {look(looker)}", flush=True)
            toy.until_nothing_runs()
            for _ in range(WARM_UP):
                found = look(looker)
            print(f"from now on: {found}", flush=True)
            if "nothing new" not in found:
                raise SystemExit("the first retrain came to no end: see .prefect/up/worker-cpu.log")
            before = measure(toy, looker.pid)
            begun = time.monotonic()
            for _ in range(looks):
                look(looker)
            took = (time.monotonic() - begun) / looks
            after = measure(toy, looker.pid)
            show(f"{looks} looks, {took:.2f} s each", before, after, looks / 100, "100 looks")
            ended = [toy.retrain() for _ in range(retrains)]
            trained = measure(toy, looker.pid)
            completed = ended.count("completed")
            show(f"{retrains} retrains, {completed} completed", after, trained, retrains, "retrain")
            said = run_gc(toy)
            time.sleep(5)  # the server deletes logs when it has the time
            print(said, flush=True)
            show("mammoflow gc", trained, measure(toy, looker.pid), 1, "gc")
            if completed < retrains:
                raise SystemExit(f"{retrains - completed} retrains did not complete")
        finally:
            looker.kill()


@contextmanager
def start(folder: Path) -> Iterator[Toy]:
    """`mammoflow up` in a clone of a toy, whose servers are its own."""
    origin, root = folder / "origin", folder / "clone"
    make_toy(origin)
    for name in ("flows", "mammo"):
        shutil.copytree(ROOT / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "mammoflow_artifacts.py"):
        shutil.copy(ROOT / name, origin)
    with (origin / "flows" / "tracking" / "register.py").open("a") as file:
        file.write(REGISTER)
    with (origin / ".gitignore").open("a") as file:
        file.write("/.prefect/\n/.cache/\n__pycache__/\n")
    run(origin, "git", "add", "-A")
    run(origin, "git", "commit", "-qm", "with the flows")
    run(folder, "git", "clone", "-q", str(origin), "clone")
    shutil.copytree(origin / "data", root / "data")
    port, tracking = find_free_port(), find_free_port()
    env = environment({"PYTHONPATH": str(root), "PREFECT_WORKER_QUERY_SECONDS": "2"})
    env |= {"PREFECT_SERVER_API_PORT": str(port), "MLFLOW_PORT": str(tracking)}
    up = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "up"],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    api = f"http://127.0.0.1:{port}/api"
    env |= {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{tracking}"}
    try:
        assert up.stdout is not None
        said = []
        for line in up.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        if up.poll() is not None:
            raise SystemExit("".join(said))
        yield Toy(root, up, api, env)
    finally:
        up.terminate()
        up.wait()


def look(looker: "subprocess.Popen[str]") -> str:
    """One look; what it found."""
    assert looker.stdin is not None
    assert looker.stdout is not None
    looker.stdin.write("\n")
    looker.stdin.flush()
    found = looker.stdout.readline()
    if not found:
        raise SystemExit("the looks ended")
    return found.strip()


def measure(toy: Toy, looks: int) -> dict[str, float]:
    """MB of memory and disk, by name."""
    return toy.memory(looks) | toy.disk()


def run_gc(toy: Toy) -> str:
    """What `mammoflow gc` removes at once, whatever its age."""
    command = [sys.executable, "-m", "flows.cli", "gc", "--yes", "--days", "0"]
    result = subprocess.run(command, cwd=toy.root, env=toy.env, capture_output=True, text=True)
    return result.stdout + result.stderr


def show(
    title: str, before: Mapping[str, float], after: Mapping[str, float], times: float, unit: str
) -> None:
    """Print both, and the difference for each unit."""
    print(f"\n{title:36}{'MB before':>12}{'MB after':>12}{f'MB per {unit}':>20}")
    for name in before:
        more = (after[name] - before[name]) / times
        print(f"{name:36}{before[name]:12.1f}{after[name]:12.1f}{more:20.2f}", flush=True)


def _own(process: psutil.Process) -> float:
    """MB that would be free if a process ended; none if it has."""
    try:
        return float(process.memory_full_info().uss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _measure(file: Path) -> int:
    try:
        return os.lstat(file).st_blocks * 512
    except FileNotFoundError:  # gone meanwhile
        return 0


if __name__ == "__main__":
    typer.run(main)
