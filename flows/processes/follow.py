"""Child processes that are followed line by line and never outlive their caller.

No process is signalled by a number that may be another's by now. A child's number is its own, and
its group's, until it is waited for; so that is done last, after every signal.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from flows.processes.orphan_guard import GRACE
from flows.processes.words import Say
from mammo.pins import PINS

GUARD = Path(__file__).with_name("orphan_guard.py")

# What a computation may need of the environment: where programs and libraries are, how the machine
# is to be used. Never an identity on other machines: passwords, tokens, addresses.
_NEEDED = (
    *("CUDA_VISIBLE_DEVICES", "MAMMOFLOW_DEVICE"),
    *("LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"),
)
_NEEDED_PREFIXES = ("NVIDIA_", "OMP_")

POLL = 0.02  # seconds between two looks at a child that is about to end

_running: "set[_Child]" = set()


class CommandError(Exception):
    """A child ended with an error or ran out of time; the message ends with its last lines."""


class _Child:
    """A process in a group of its own. Any thread may stop it; each may at the same time."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]):
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,  # ends when this process does; nothing is written to it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._stopping = threading.Lock()

    def await_end(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, or for `timeout` seconds, and leave it a zombie."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with contextlib.suppress(psutil.NoSuchProcess):  # another thread has stopped it
            process = psutil.Process(self.process.pid)
            while process.status() != psutil.STATUS_ZOMBIE and self.process.returncode is None:
                if deadline is not None and time.monotonic() > deadline:
                    return
                time.sleep(POLL)

    def stop(self) -> None:
        """End every process of the group: first by asking, then by force."""
        with self._stopping:
            if self.process.returncode is not None:
                return  # done before, and the number may be another's by now
            self._signal(signal.SIGTERM)
            self.await_end(GRACE)
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # macOS does not permit it where only the zombie is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def follow(
    command: Sequence[str],
    cwd: Path,
    on_line: Say,
    extra_env: Mapping[str, str] | None = None,
    time_limit: float | None = None,
    env: Mapping[str, str] | None = None,
) -> list[str]:
    """Run a command, hand each line of its output to `on_line` as it comes, and return them all.

    The child gets a process group of its own. Whatever ends this call early (an exception, a
    cancellation, the time limit in seconds) ends the whole group, so that no training goes on
    unseen. Should this process be killed, the group's guard does it.

    Args:
        command: and its arguments.
        cwd: where it runs.
        on_line: called for each line.
        extra_env: variables in addition to those of this process.
        time_limit: in seconds.
        env: variables instead of those of this process.

    Raises:
        CommandError: on a non-zero exit or when the time limit has passed.
    """
    child = _Child(
        [sys.executable, "-IS", str(GUARD), *command],
        cwd,
        {**(os.environ if env is None else env), **(extra_env or {}), "PYTHONUNBUFFERED": "1"},
    )
    _running.add(child)
    lines: list[str] = []
    try:
        with _stop_after(child, time_limit) as timed_out:
            assert child.process.stdout is not None
            for line in child.process.stdout:
                lines.append(line.rstrip())
                on_line(lines[-1])
            child.await_end()
    finally:
        child.stop()
        _running.discard(child)
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                pipe.close()
    if timed_out.is_set():
        raise CommandError(_describe_failure(command, f"was stopped after {time_limit:g} s", lines))
    status = child.process.returncode
    if status != 0:
        raise CommandError(_describe_failure(command, f"ended with status {status}", lines))
    return lines


@contextlib.contextmanager
def _stop_after(child: _Child, seconds: float | None) -> Iterator[threading.Event]:
    """Stop a child after a time, if there is a limit; the event is set if that has happened."""
    timed_out = threading.Event()
    if seconds is None:
        yield timed_out
        return

    def stop_late_child() -> None:
        timed_out.set()
        child.stop()

    timer = threading.Timer(seconds, stop_late_child)
    timer.daemon = True
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()


def ignore(_line: str) -> None:
    """Do nothing with a line of output: a failure quotes the last ones."""


def make_bare_environment(home: Path, code: Path) -> dict[str, str]:
    """The environment for a computation that needs nothing of ours.

    Args:
        home: its home folder.
        code: where its packages are.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if name in _NEEDED or name in PINS or name.startswith(_NEEDED_PREFIXES)
    }
    return {**ours, "HOME": str(home), "PYTHONPATH": str(code), "PYTHONNOUSERSITE": "1"}


def stop_all() -> None:
    """End every child that any thread follows at this moment.

    An interrupt reaches the main thread alone; the threads that wait for children never see it.
    """
    for child in list(_running):
        child.stop()


def _describe_failure(command: Sequence[str], what: str, lines: Sequence[str]) -> str:
    tail = "\n".join(line for line in lines[-12:] if line.strip())
    return f"`{' '.join(command)}` {what}. Its last lines:\n{tail}"
