"""Workers that die or hang take only their item along."""

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from mammo.base.errors import UserError
from mammo.compute.worker_pool import MEMORY, Failure, WorkerPool


def work(item: object) -> object:
    """Do harm if the item says so."""
    match item:
        case "crash":
            ctypes.string_at(0)  # a segmentation fault
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            # As C code does: a signal is not heard before it returns.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            time.sleep(10_000)
        case "eat":
            return len(bytearray(2 * MEMORY))
        case Path():
            if not item.exists():  # the first time
                item.touch()
                os._exit(1)
    return item


def test_results_come_in_order_and_only_the_bad_items_are_lost(tmp_path: Path) -> None:
    again = tmp_path / "died once"
    items = [1, "crash", 2, "hang", 3, "kill", 4, again, *range(5, 30)]
    found = list(WorkerPool(work, workers=2, seconds=2).map(items))
    crashed = Failure("crashed")
    assert found == [1, crashed, 2, Failure("hung"), 3, crashed, 4, again, *range(5, 30)]


def test_memory_is_limited() -> None:
    with pytest.raises(MemoryError):
        list(WorkerPool(work, workers=1, seconds=60).map(["eat"]))


def test_an_error_of_the_work_is_passed_on() -> None:
    with pytest.raises(TypeError):
        list(WorkerPool(len, workers=1, seconds=60).map([5]))  # type: ignore[list-item]


def dying() -> None:
    os._exit(1)


def test_workers_that_cannot_start_are_an_error() -> None:
    with pytest.raises(UserError, match="before they have any work"):
        list(WorkerPool(work, workers=1, seconds=60, initializer=dying).map([1]))
