"""All programs that automatic retraining needs: Prefect, MLflow, and one worker for each pool.

    mammoflow up                     # all of it, in this clone, until Ctrl-C
    mammoflow up --workers gpu       # on another machine: only that worker, for PREFECT_API_URL

The programs' own variables are respected: PREFECT_SERVER_API_HOST and _PORT, MLFLOW_HOST and _PORT,
PREFECT_API_DATABASE_CONNECTION_URL, MLFLOW_BACKEND_STORE_URI. State stays in the clone, where
`mammoflow retrain` has it, too: .prefect/ and mlruns/. The programs' output is in .prefect/up/.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

import psutil

from flows.processes import proxies
from flows.processes.prefect_home import LOGS
from flows.processes.reach import require_prefect
from flows.processes.run_dvc import dvc_env
from flows.processes.words import Say
from flows.remote.worker_clone import CLONE
from flows.servers.deployments import HEARTBEAT, POOLS, set_up
from flows.servers.supervised import (
    Running,
    Service,
    check_alive,
    list_processes,
    require_free,
    start,
    stop,
    terminate,
    wait_until_ready,
)
from flows.tracking.addresses import locate_registry
from mammo.base.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STABLE = 60.0  # seconds; a worker that ends later has worked, and is started again

WATCHED = "cpu"  # the pool whose worker runs the watch and what it starts
EVERY = 900.0  # seconds after which the watch asks again


@dataclass(frozen=True)
class Address:
    """Where a server listens, and how its own machine reaches it."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address without a path."""
        local = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  (nothing is bound to it)
        return f"http://{local}:{self.port}"


def up(root: Path, workers: Sequence[str], say: Say, without: Sequence[str] = ()) -> None:
    """Start servers and workers, or only the named workers, and wait until they are stopped.

    Args:
        root: the clone, in which the workers run their flows.
        workers: pools; if given, only their workers are started, and no server.
        say: gets a line for each program that is started.
        without: pools whose workers are on other machines.

    Raises:
        UserError: if a program cannot start, does not answer, or ends by itself, with its last
            lines.
    """
    if not (root / "prefect.yaml").exists():
        raise UserError(f"{root} has no prefect.yaml: start this in a clone of the project")
    unknown = sorted({*workers, *without} - set(POOLS))
    if unknown:
        raise UserError(f"there is no pool {', '.join(unknown)}, only {', '.join(POOLS)}")
    api = os.environ.get("PREFECT_API_URL", "")
    if workers and not api:
        raise UserError("a worker alone needs PREFECT_API_URL: the address of a Prefect server")
    if workers:
        require_prefect()
    before = [signal.signal(number, _interrupt) for number in SIGNALS]
    running: list[Running] = []
    try:
        environment = _environment(root) if workers else _start_servers(root, running, say)
        for pool in workers or [pool for pool in POOLS if pool not in without]:
            running.append(start(_worker_service(pool, environment), root, root / LOGS))
            say(f"worker   pool {pool}, flows run in {root}")
            if pool == WATCHED:
                running.append(start(_watch_service(environment), root, root / LOGS))
                say(f"watch    looks every {EVERY / 60:g} minutes for what is to be retrained")
        say("Ctrl-C stops all of it.")
        _watch_over(running, root, say)
    except KeyboardInterrupt:
        say("stopping")
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave half of it running
        stop(running)
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _watch_over(running: list[Running], root: Path, say: Say) -> NoReturn:
    """Watch the programs: a worker that ends is started again; if a server ends, all ends.

    Processes of the worker's flow runs are ended with it: nobody could cancel them any more.

    Raises:
        UserError: if a server ends, or a worker soon after it was started.
    """
    processes: dict[str, list[psutil.Process]] = {}
    while True:
        time.sleep(1)
        for index, one in enumerate(running):
            status = one.process.poll()
            if status is None:
                if one.service.answers is None:  # a worker
                    processes[one.name] = list_processes(one)
                continue
            if one.service.answers or time.monotonic() - one.since < STABLE:
                check_alive(one)
            terminate(processes.get(one.name, []))
            running[index] = start(one.service, root, one.log.parent)
            say(f"{one.name} ended with status {status}: started again, see {one.log}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _environment(root: Path) -> dict[str, str]:
    """The environment of servers and workers: this one, and where the clone and its code are."""
    return {
        # For minutes: a server that is busy for one answers 503, and that ends no run.
        "PREFECT_CLIENT_MAX_RETRIES": "8",
        **os.environ,
        CLONE: str(root),
        **dvc_env(),
        "PYTHONPATH": str(root),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": f"{HEARTBEAT:g}",
    }


def _start_servers(root: Path, running: list[Running], say: Say) -> dict[str, str]:
    """Start both servers, make pools and deployments, and return the workers' environment."""
    prefect = _address("PREFECT_SERVER_API", 4200)
    mlflow = _address("MLFLOW", 5000)
    require_free(prefect.host, prefect.port, "PREFECT_SERVER_API_PORT")
    require_free(mlflow.host, mlflow.port, "MLFLOW_PORT")
    proxies.exempt(urlsplit(address.url).hostname or "" for address in (prefect, mlflow))
    environment = _environment(root)
    say(f"starting MLflow and Prefect; their output is in {root / LOGS}")
    services = (_mlflow_server(root, mlflow, environment), _prefect_server(prefect, environment))
    # One by one: if a later one cannot start, the caller still stops the earlier ones.
    for service in services:
        running.append(start(service, root, root / LOGS))  # noqa: PERF401  (what has started must be in it when a later one fails)
    for one in running:
        wait_until_ready(one)
    environment["PREFECT_API_URL"] = f"{prefect.url}/api"
    environment["MLFLOW_TRACKING_URI"] = mlflow.url
    set_up(root, environment, say)
    say(f"Prefect  {prefect.url}    export PREFECT_API_URL={prefect.url}/api")
    say(f"MLflow   {mlflow.url}    export MLFLOW_TRACKING_URI={mlflow.url}")
    return environment


def _address(prefix: str, port: int) -> Address:
    host = os.environ.get(f"{prefix}_HOST", "127.0.0.1")
    return Address(host, int(os.environ.get(f"{prefix}_PORT", port)))


def _prefect_server(address: Address, environment: dict[str, str]) -> Service:
    command = ["server", "start", "--host", address.host, "--port", str(address.port)]
    # The pages send requests to the address that they came from, whatever its name is.
    env = {**environment, "PREFECT_UI_API_URL": os.environ.get("PREFECT_UI_API_URL", "/api")}
    env.pop("PREFECT_API_URL", None)
    return Service("prefect", _python("prefect", *command), env, f"{address.url}/api/health")


def _mlflow_server(root: Path, address: Address, environment: dict[str, str]) -> Service:
    """A server of the registry that `mammoflow retrain` uses alone, or of the user's store."""
    env = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env.setdefault("MLFLOW_WORKERS", "1")  # four by default, each of which takes memory
    env.pop("MLFLOW_TRACKING_URI", None)
    artifacts = str(root / "mlruns" / "artifacts")
    env.setdefault("MLFLOW_ARTIFACTS_DESTINATION", artifacts)
    if "MLFLOW_BACKEND_STORE_URI" not in env:
        if env["MLFLOW_ARTIFACTS_DESTINATION"] != artifacts:
            raise UserError(
                f"MLFLOW_ARTIFACTS_DESTINATION is {env['MLFLOW_ARTIFACTS_DESTINATION']}, but the "
                f"artifacts of the clone's own registry are in mlruns/artifacts: set "
                f"MLFLOW_BACKEND_STORE_URI as well, or neither"
            )
        store = f"sqlite:///{locate_registry(root)}"
        _open_local_store(root, store)
        env["MLFLOW_BACKEND_STORE_URI"] = store
    _require_driver(env["MLFLOW_BACKEND_STORE_URI"])
    if env["MLFLOW_ARTIFACTS_DESTINATION"].startswith("s3:") and find_spec("boto3") is None:
        # Otherwise the server would start, and fail at each artifact.
        raise UserError(
            f"MLFLOW_ARTIFACTS_DESTINATION is {env['MLFLOW_ARTIFACTS_DESTINATION']}, which needs "
            f"the package boto3: run `uv pip install --constraint requirements.lock boto3`"
        )
    command = ["server", "--host", address.host, "--port", str(address.port)]
    return Service("mlflow", _python("mlflow", *command), env, f"{address.url}/health")


def _require_driver(store: str) -> None:
    """Make sure that Python can speak with the database of a store.

    Raises:
        UserError: naming the package that is missing.
    """
    # Not at the top: it takes time, and a worker alone does not need it.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(store).get_dialect().import_dbapi()
    except ImportError as error:
        scheme = store.partition(":")[0]
        package = "psycopg[binary]" if error.name == "psycopg" else error.name
        raise UserError(
            f"MLFLOW_BACKEND_STORE_URI is an address of {scheme}, which needs the package "
            f"{package}: run `uv pip install --constraint requirements.lock '{package}'`"
        ) from None
    except ArgumentError as error:  # also if no such dialect is known
        raise UserError(f"MLFLOW_BACKEND_STORE_URI is no address of a database: {error}") from None


def _open_local_store(root: Path, store: str) -> None:
    """Mend the addresses of a registry that was moved, before the server hands them out."""
    import mlflow

    from flows.tracking import registry

    mlflow.set_tracking_uri(store)
    registry.open_store(root)
    mlflow.set_tracking_uri("")


def _worker_service(pool: str, environment: dict[str, str]) -> Service:
    limit = POOLS[pool]
    name = f"{pool} on {socket.gethostname()}"
    command = ["worker", "start", "--pool", pool, "--type", "process", "--name", name]
    command += ["--limit", str(limit)] if limit is not None else []
    return Service(f"worker-{pool}", _python("prefect", *command), environment)


def _watch_service(environment: dict[str, str]) -> Service:
    """The process that starts the watch when there is a snapshot to retrain."""
    return Service("looks", _python("flows.retraining.watch_loop", f"{EVERY:g}"), environment)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
