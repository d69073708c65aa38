"""Children are followed line by line and never outlive their caller."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from flows.processes.follow import CommandError, _Child, follow, stop_all
from tests.imports import ROOT
from tests.support.processes import gone

REAPER = ROOT / "flows" / "processes" / "reaper.py"


def test_lines_arrive_while_the_child_still_runs(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    done = tmp_path / "done"
    follow(
        ["bash", "-c", "echo one; sleep 1; echo two; touch done"],
        tmp_path,
        lambda line: seen.append((line, done.exists())),
    )
    assert seen[0] == ("one", False)
    assert [line for line, _ in seen] == ["one", "two"]


def test_a_failure_tells_the_status_and_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ended with status 3.*\n.*disk on fire"):
        follow(["bash", "-c", "echo disk on fire >&2; exit 3"], tmp_path, lambda line: None)


def test_the_time_limit_ends_grandchildren_too(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"stopped after 1 s"):
        follow(
            ["bash", "-c", "sleep 60 & echo $! > pid; wait"],
            tmp_path,
            lambda line: None,
            time_limit=1,
        )
    assert gone(int((tmp_path / "pid").read_text()))


def test_an_exception_in_the_reader_ends_the_child(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(["bash", "-c", "echo $$ > pid; echo up; sleep 60"], tmp_path, interrupt)
    assert gone(int((tmp_path / "pid").read_text()))


def test_stop_all_reaches_children_of_other_threads(tmp_path: Path) -> None:
    started = threading.Event()
    errors: list[str] = []

    def run() -> None:
        try:
            follow(
                ["bash", "-c", "echo $$ > pid; echo up; sleep 60"],
                tmp_path,
                lambda _: started.set(),
            )
        except CommandError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    stop_all()
    thread.join(10)
    assert not thread.is_alive()
    assert errors
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_extra_environment_reaches_the_child(tmp_path: Path) -> None:
    lines = follow(
        ["bash", "-c", "echo $MAMMO_TEST"], tmp_path, lambda line: None, {"MAMMO_TEST": "x"}
    )
    assert lines == ["x"]
    assert "MAMMO_TEST" not in os.environ


def test_a_killed_caller_takes_the_whole_group_along(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from flows.processes.follow import follow\n"
        "follow(['bash', '-c', 'sleep 60 & echo $! > pid; echo up; wait'], Path.cwd(),"
        " lambda line: print(line, flush=True))"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "up\n"
    caller.kill()
    caller.wait()
    assert gone(int((tmp_path / "pid").read_text()), within=30)


def test_a_command_that_a_signal_ended_says_which(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ended with status 137"):
        follow(["bash", "-c", "kill -9 $$"], tmp_path, lambda line: None)


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no-such-command: cannot be run"):
        follow(["no-such-command"], tmp_path, lambda line: None)


LEAVES_ONE = "sleep 60 > /dev/null 2>&1 & echo $! > pid"


def test_a_group_is_signalled_only_while_its_number_is_surely_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a child is waited for, no other process can get its number."""
    owners: list[int] = []
    usual = os.killpg

    def killpg(group: int, number: int) -> None:
        owners.append(psutil.Process(group).ppid())
        usual(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    follow(["bash", "-c", LEAVES_ONE], tmp_path, lambda line: None)
    assert owners == [os.getpid()] * 2
    assert gone(int((tmp_path / "pid").read_text()))
    stop_all()
    assert len(owners) == 2


def test_a_child_that_many_threads_stop_is_waited_for_once(tmp_path: Path) -> None:
    child = _Child(["sleep", "60"], tmp_path, dict(os.environ))
    threads = [threading.Thread(target=child.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    child.await_end()
    for thread in threads:
        thread.join(10)
    assert child.process.returncode == -signal.SIGTERM
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        pipe.close()


def test_a_child_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ended with status 3"):
        follow(["bash", "-c", "exec >&- 2>&-; sleep 1; exit 3"], tmp_path, lambda line: None)


@pytest.mark.parametrize("same", [True, False])
def test_the_reaper_ends_a_process_only_if_it_is_the_one_that_was_meant(same: bool) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        created = psutil.Process(sleeper.pid).create_time() - (0 if same else 1)
        command = [sys.executable, str(REAPER), str(sleeper.pid), repr(created)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as reaper:
            assert reaper.stdin is not None
            reaper.stdin.close()
            assert reaper.wait(60) == 0
        assert gone(sleeper.pid, within=5 if same else 0.5) is same
        sleeper.kill()


def test_the_reaper_does_not_mind_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as ended:
        created = psutil.Process(ended.pid).create_time()
    command = [sys.executable, str(REAPER), str(ended.pid), repr(created)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
