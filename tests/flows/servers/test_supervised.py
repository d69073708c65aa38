"""Programs are ended with their families, and no stranger that has got one's number since."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.servers.supervised import Running, Service, list_processes, start, stop, terminate
from tests.support.processes import alive, gone


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A living process, as somebody holds it who means an earlier one with that number."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        handle = psutil.Process(sleeper.pid)
        handle._ident = (sleeper.pid, 1.0)
        yield handle
        sleeper.kill()


def test_a_stranger_with_the_number_of_a_program_is_not_ended(
    stranger: psutil.Process, tmp_path: Path
) -> None:
    terminate([stranger])
    running = start(Service("one", ["true"], {}), tmp_path, tmp_path / "logs")
    running.process.wait()
    later = Running(running.service, running.process, stranger, running.log, running.since)
    assert list_processes(later) == []
    stop([later])
    assert alive(stranger.pid)


def test_a_program_that_has_ended_has_no_family(tmp_path: Path) -> None:
    running = start(Service("one", ["true"], {}), tmp_path, tmp_path / "logs")
    running.process.wait()
    assert list_processes(running) == []
    stop([running])


def test_a_program_is_ended_with_what_it_has_started_elsewhere(tmp_path: Path) -> None:
    text = "setsid sleep 60 & echo $! > child.partial; mv child.partial child; wait"
    env = {"PATH": "/usr/bin:/bin"}
    running = start(Service("one", ["bash", "-c", text], env), tmp_path, tmp_path / "logs")
    while not (tmp_path / "child").exists():
        assert running.process.poll() is None
    stop([running])
    assert gone(int((tmp_path / "child").read_text()))
    assert running.process.returncode is not None
