"""Several processes that train together, without torchrun: started quickly.

python -m tests.support.together FATE FOLDER     # what torchrun starts in tests of `parallel`
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from mammo.base.errors import UserError
from mammo.learning.parallel import Part, join_others, run_part


def run_in_processes(count: int, work: Callable[..., None], *arguments: object) -> list[int | None]:
    """Call `work(*arguments, part)` in several processes that have joined; how each ended."""
    context = get_context("forkserver")
    # What each would import for itself, as it begins to train and when it scores.
    late = ["torch._dynamo", "sklearn.metrics"]
    context.set_forkserver_preload(["tests.support.stage_runs", *late])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_join_and_work, args=(index, count, port, work, arguments))
        for index in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


def _join_and_work(
    index: int, count: int, port: int, work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_others() as part:
        work(*arguments, part)


def meet(fate: str, folder: Path) -> None:
    """Be one of two processes: write down which, and come to the end that `fate` names."""
    with join_others() as part:
        assert part == Part(int(os.environ["RANK"]), 2)
        (folder / str(part.index)).write_text(str(os.getpid()))
        print(f"this is {part.index}", flush=True)
        if part.is_first and fate != "ends well":
            time.sleep(60)
        if fate == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "says a sentence":
            raise UnreadableError("film.png: cannot be read")
        if fate == "waits":
            time.sleep(60)


class UnreadableError(UserError):
    """As stages have errors of their own kinds."""


if __name__ == "__main__":
    run_part(lambda: meet(sys.argv[1], Path(sys.argv[2])))
