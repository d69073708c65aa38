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
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

import psutil

from flows.processes import proxies
from flows.processes.prefect_home import LOGS
from flows.processes.run_dvc import make_environment
from flows.processes.words import Say
from flows.remote.worker_clone import CLONE
from flows.servers.deployments import HEARTBEAT, set_up
from flows.servers.supervised import (
    Running,
    Service,
    check_alive,
    list_processes,
    start,
    stop,
    terminate,
    wait_until_ready,
)
from flows.servers.wanted import (
    POOLS,
    Address,
    find_artifacts_folder,
    find_mlflow_address,
    find_prefect_address,
)
from flows.tracking.addresses import locate_registry

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STABLE = 60.0  # seconds; a worker that ends later has worked, and is started again

WATCHED = "cpu"  # the pool whose worker runs the watch and what it starts
EVERY = 900.0  # seconds after which the watch asks again


def up(root: Path, workers: Sequence[str], say: Say, without: Sequence[str] = ()) -> None:
    """Start servers and workers, or only the named workers, and wait until they are stopped.

    Args:
        root: the clone, in which the workers run their flows; `check_wanted` has looked at it.
        workers: pools; if given, only their workers are started, and no server.
        say: gets a line for each program that is started.
        without: pools whose workers are on other machines.

    Raises:
        UserError: if a program cannot start, does not answer, or ends by itself, with its last
            lines.
    """
    before = [signal.signal(number, _interrupt) for number in SIGNALS]
    running: list[Running] = []
    try:
        environment = _make_environment(root) if workers else _start_servers(root, running, say)
        for pool in workers or [pool for pool in POOLS if pool not in without]:
            running.append(start(_describe_worker(pool, environment), root, root / LOGS))
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


def _make_environment(root: Path) -> dict[str, str]:
    """The environment of servers and workers: this one, and where the clone and its code are."""
    return {
        # For minutes: a server that is busy for one answers 503, and that ends no run.
        "PREFECT_CLIENT_MAX_RETRIES": "8",
        **os.environ,
        CLONE: str(root),
        **make_environment(),
        "PYTHONPATH": str(root),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": f"{HEARTBEAT:g}",
    }


def _start_servers(root: Path, running: list[Running], say: Say) -> dict[str, str]:
    """Start both servers, make pools and deployments, and return the workers' environment."""
    prefect, mlflow = find_prefect_address(), find_mlflow_address()
    proxies.exempt(urlsplit(address.url).hostname or "" for address in (prefect, mlflow))
    environment = _make_environment(root)
    say(f"starting MLflow and Prefect; their output is in {root / LOGS}")
    services = (
        _describe_mlflow_server(root, mlflow, environment),
        _describe_prefect_server(prefect, environment),
    )
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


def _describe_prefect_server(address: Address, environment: dict[str, str]) -> Service:
    command = ["server", "start", "--host", address.host, "--port", str(address.port)]
    # The pages send requests to the address that they came from, whatever its name is.
    env = {**environment, "PREFECT_UI_API_URL": os.environ.get("PREFECT_UI_API_URL", "/api")}
    env.pop("PREFECT_API_URL", None)
    return Service("prefect", _run_by_python("prefect", *command), env, f"{address.url}/api/health")


def _describe_mlflow_server(root: Path, address: Address, environment: dict[str, str]) -> Service:
    """A server of the registry that `mammoflow retrain` uses alone, or of the user's store."""
    env = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env.setdefault("MLFLOW_WORKERS", "1")  # four by default, each of which takes memory
    env.pop("MLFLOW_TRACKING_URI", None)
    env.setdefault("MLFLOW_ARTIFACTS_DESTINATION", find_artifacts_folder(root))
    if "MLFLOW_BACKEND_STORE_URI" not in env:
        store = f"sqlite:///{locate_registry(root)}"
        _open_local_store(root, store)
        env["MLFLOW_BACKEND_STORE_URI"] = store
    command = ["server", "--host", address.host, "--port", str(address.port)]
    return Service("mlflow", _run_by_python("mlflow", *command), env, f"{address.url}/health")


def _open_local_store(root: Path, store: str) -> None:
    """Mend the addresses of a registry that was moved, before the server hands them out."""
    import mlflow

    from flows.tracking import registry

    mlflow.set_tracking_uri(store)
    registry.open_store(root)
    mlflow.set_tracking_uri("")


def _describe_worker(pool: str, environment: dict[str, str]) -> Service:
    limit = POOLS[pool]
    name = f"{pool} on {socket.gethostname()}"
    command = ["worker", "start", "--pool", pool, "--type", "process", "--name", name]
    command += ["--limit", str(limit)] if limit is not None else []
    return Service(f"worker-{pool}", _run_by_python("prefect", *command), environment)


def _watch_service(environment: dict[str, str]) -> Service:
    """The process that starts the watch when there is a snapshot to retrain."""
    return Service(
        "looks", _run_by_python("flows.retraining.watch_loop", f"{EVERY:g}"), environment
    )


def _run_by_python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
