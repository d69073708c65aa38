"""Long-running programs that start together and end together, with all their processes."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from mammo.base.errors import UserError

PATIENCE = 300.0  # seconds until a program must answer
GRACE = 20.0  # seconds for processes that are asked to stop: a stage needs up to ten
LAST_LINES = 15


@dataclass(frozen=True)
class Service:
    """A program to start; it is ready as soon as the address `answers` responds."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    answers: str | None = None  # a URL


@dataclass(frozen=True)
class Running:
    """A program that was started, and the file with its output."""

    service: Service
    process: "subprocess.Popen[bytes]"
    handle: psutil.Process  # distinguishes it from a later process with the same number
    log: Path
    since: float  # time.monotonic() when it was started

    @property
    def name(self) -> str:
        """The name of its service."""
        return self.service.name


def start(service: Service, root: Path, logs: Path) -> Running:
    """Start a program in `root`, in a session of its own: Ctrl-C does not reach it.

    Its output is appended to a file in the folder `logs`.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{service.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            service.command,
            cwd=root,
            env=dict(service.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Nobody has waited for the process: the number is still its own, even if it has ended.
    return Running(service, process, psutil.Process(process.pid), log, time.monotonic())


def wait_until_ready(running: Running) -> None:
    """Wait until a program answers.

    Raises:
        UserError: if it ends before, or takes longer than PATIENCE, with its last lines.
    """
    deadline = time.monotonic() + PATIENCE
    address = running.service.answers
    while address is not None:
        check_alive(running)
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(address, timeout=5).is_success:
                return
        if time.monotonic() > deadline:
            raise UserError(f"{running.name} does not answer at {address}{_read_tail(running)}")
        time.sleep(0.25)


def check_alive(running: Running) -> None:
    """Make sure that a program has not ended.

    Raises:
        UserError: if it has, with its last lines.
    """
    status = running.process.poll()
    if status is not None:
        raise UserError(f"{running.name} ended with status {status}{_read_tail(running)}")


def require_free(host: str, port: int, variable: str) -> None:
    """Make sure that a port can be listened on.

    Raises:
        UserError: naming the variable that chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}:{port} ({error.strerror}): is `mammoflow up` running "
                f"already? {variable} chooses another port"
            ) from None


def stop(running: Sequence[Running]) -> None:
    """End programs, the last started first, and every process that they have started.

    A worker starts each flow run in a session of its own, and a flow run its stage. Neither a
    signal to the worker's group nor its end reaches them, so they are looked up before.
    """
    for one in reversed(running):
        terminate(list_processes(one))
        one.process.wait()


def list_processes(running: Running) -> list[psutil.Process]:
    """A program's process and its descendants, itself first; empty if it has ended."""
    try:
        return [running.handle, *running.handle.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def terminate(processes: Sequence[psutil.Process]) -> None:
    """End processes: ask them, then kill them; processes that have ended already are skipped.

    psutil knows each by its number and its time of creation, and signals no other process.
    """
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(alive, timeout=GRACE)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE)


def _read_tail(running: Running) -> str:
    lines = running.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return f"; the last lines of {running.log}:\n" + "\n".join(lines)
