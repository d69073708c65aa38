"""A project whose stages are shell scripts, run by the real flow: for what is not about stages.

Its predictor is a model of three lines, so that registering takes no time either.
"""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.imports import ROOT
from tests.support.repositories import init_repository

DVC_YAML = """
    stages:
      slow:
        cmd: bash slow.sh
        deps: [slow.sh]
        params: [seed]
        outs: [outputs/slow.bin]
      last:
        cmd: >-
          sha256sum outputs/slow.bin > outputs/last.txt &&
          mkdir -p outputs/evaluate && cp predictions.csv outputs/evaluate
        deps: [outputs/slow.bin, predictions.csv]
        outs: [outputs/last.txt, outputs/evaluate/predictions.csv]
"""
PREDICTIONS = """
patient_id,image_id,laterality,view,split,target,probability
6,1,L,CC,test,1,0.9
6,2,R,CC,test,0,0.1
"""
TRAIN = """
site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,difficult_negative_case
1,6,1,L,CC,50,1,1,1,,0,B,1,0
1,6,2,R,CC,50,0,0,0,,0,B,1,0
"""  # of a woman whom the hash of her id makes a test woman
SLOW = """
    echo $$ > started
    while [ -e hold ]; do sleep 0.1; done
    mkdir -p outputs
    [ ! -e limit ] || ulimit -f 100
    head -c 3000000 /dev/zero > outputs/slow.bin
"""
MODEL = """
    import mlflow
    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str], params=None): return model_input
    mlflow.models.set_model(Model())
"""
DRIVER = """
    import time
    import flows
    import mlflow
    from flows.cli import app
    from flows.tracking import register

    def log_predictor(root, run):
        (root / "registering").touch()
        while (root / "hold-registration").exists():
            time.sleep(0.1)
        with mlflow.start_run(run_id=run):
            return mlflow.pyfunc.log_model(
                name="model", python_model=str(root / "model.py"), pip_requirements=[]
            ).model_uri

    register.log_predictor = log_predictor
    if __name__ == "__main__":
        app.app()
"""

RUN_STAGES = """
    import sys
    from pathlib import Path
    import flows
    from flows.retraining.run_stages import run_pipeline
    from flows.tracking import registry, runs
    from flows.pipeline.graph import read_pipeline
    from flows.snapshots.snapshot import Snapshot
    from prefect import flow
    root, pool, names = Path.cwd(), sys.argv[1:2], sys.argv[2:]
    experiment = registry.open_store(root)
    parent = runs.start_retrain(experiment, Snapshot("0" * 40, {}))

    @flow
    def toy():
        stages = [stage for stage in read_pipeline(root) if not names or stage.name in names]
        for outcome in run_pipeline(stages, root, experiment, parent, pool):
            print(outcome.stage, outcome.fate)

    toy()
"""  # [POOL STAGE...]: the stages as a flow, those of the pool through a worker


def make_toy(root: Path) -> None:
    """A project of two stages. `slow` waits while there is a file `hold`; its number: `started`."""
    root.mkdir()
    files = {"dvc.yaml": DVC_YAML, "slow.sh": SLOW, "model.py": MODEL, "driver.py": DRIVER}
    for name, text in files.items():
        (root / name).write_text(textwrap.dedent(text))
    (root / "predictions.csv").write_text(PREDICTIONS.lstrip())
    for name in ("params.yaml", "plan.yaml"):
        shutil.copy(ROOT / name, root)
    (root / ".gitignore").write_text(
        "/outputs/\n/mlruns/\n/data/\n/started\n/hold*\n/limit\n/registering\n"
    )
    (root / "data").mkdir()
    (root / "data" / "train.csv").write_text(TRAIN.lstrip())
    init_repository(root)
    run(root, sys.executable, "-m", "dvc", "init", "-q")
    run(root, sys.executable, "-m", "dvc", "add", "-q", "data")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "a toy")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing that this test run has in its environment may point a child elsewhere."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env |= {"DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}
    # DVC runs commands with it: bash becomes the stage, sh would be its parent and outlive it.
    env["SHELL"] = shutil.which("bash") or "bash"
    return {**env, **(extra or {})}


def run(root: Path, *arguments: str) -> str:
    """Run a command that must succeed; what it prints."""
    result = subprocess.run(
        arguments,
        cwd=root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


class Retrain:
    """A `mammoflow retrain` of a toy, or another command, at work."""

    def __init__(self, root: Path, env: Mapping[str, str], *arguments: str):
        self.root = root
        for name in ("started", "registering"):
            (root / name).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "driver.py", *(arguments or ("retrain",))],
            cwd=root,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stage(self) -> int:
        """The process of the stage `slow`, once it is there."""
        self.wait_for("started", lambda text: text.endswith("\n"))
        return int((self.root / "started").read_text())

    def wait_for(self, name: str, told: Callable[[str], bool] = lambda text: True) -> None:
        """Wait for a file that a child writes."""
        path = self.root / name
        until(lambda: (path.exists() and told(path.read_text())) or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        """What it printed, when it has ended."""
        return self.process.communicate(timeout=300)[0]


def retrain(root: Path, env: Mapping[str, str], status: int = 0) -> str:
    """A whole retrain; what it printed."""
    work = Retrain(root, env)
    said = work.said()
    assert work.process.returncode == status, said
    return said


def until(true: Callable[[], bool], within: float = 180) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def find_free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(
    api: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    patience: float = 60.0,
    method: str | None = None,
) -> Any:
    """Prefect's answer: to GET, or to POST if there is a body.

    While its database is busy it is asked again, as Prefect's own client does. What got no answer
    in a minute may have been done, so only what makes nothing is asked again then.

    Args:
        api: the server's address.
        path: below it.
        body: what is posted.
        patience: seconds until it is not asked again.
        method: of HTTP, if it is another one. What has no content is answered by None.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}/{path}", data, headers, method=method)
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
        except TimeoutError:
            if path.endswith("create_flow_run") or time.monotonic() > deadline:
                raise
        time.sleep(1)


@contextmanager
def server(health: str, *command: str, env: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """A server, up and answering at the address `health`; what is yielded kills it at once."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def kill() -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def answers() -> bool:
        assert child.poll() is None, f"{command} ended with status {child.returncode}"
        try:
            with urllib.request.urlopen(health, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until(answers)
        yield kill
    finally:
        kill()


@functools.cache
def prefect_database() -> Path:
    """A folder with the database of a Prefect server that nobody has used.

    Its tables are made in a hundred steps, which take more than all else that a server does first.
    """
    home = Path(tempfile.mkdtemp(prefix="prefect-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    with prefect_server(home, find_free_port()):
        return home


@contextmanager
def prefect_server(home: Path, port: int) -> Iterator[Callable[[], None]]:
    """A Prefect server with its state in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    if not any(home.iterdir()) and not home.name.startswith("prefect-"):
        shutil.copytree(prefect_database(), home, dirs_exist_ok=True)
    address = f"http://127.0.0.1:{port}/api"
    arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    env = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with server(f"{address}/health", "prefect", *arguments, env=env) as kill:
        yield kill


@contextmanager
def mlflow_server(home: Path, port: int) -> Iterator[Callable[[], None]]:
    """An MLflow server in front of a store, which can do without it as well."""
    store = ("--backend-store-uri", f"sqlite:///{home}/mlflow.db")
    files = ("--artifacts-destination", str(home / "artifacts"))
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    health = f"http://127.0.0.1:{port}/health"
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # five processes that nobody needs
    with server(health, "mlflow", "server", *store, *files, *where, env=env) as kill:
        yield kill
