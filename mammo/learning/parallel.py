"""Processes that train one network together: which part of the work is whose, and what they sum.

torchrun starts them (`run_together`), each on a GPU of its own, or all on the CPU. A batch is
shared out by positions: of B pictures among P processes, process r takes the positions r B/P to
(r+1) B/P - 1.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.base.errors import UserError
from mammo.learning.device import VARIABLE, count_cards, is_chosen_by_hand

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_PATIENCE = timedelta(days=1)
"""For other processes, such as one that decodes pictures for all. torchrun notices a dead one."""

_CHECK_EVERY = 1.0  # seconds: whether the process that started this one still lives


@dataclass(frozen=True)
class Part:
    """Which part of the work this process does: number `index`, from 0, of `count` equal ones."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.index == 0

    def split_batches(self, pictures: int, batch: int) -> tuple[list[int], list[tuple[int, int]]]:
        """This part of every batch of an epoch.

        The last batch may be too short for all. A part that gets nothing of it takes its first
        position, so that all parts have equally many batches, and none of its pictures counts.

        Args:
            pictures: in the epoch.
            batch: pictures in a batch of all parts together; a multiple of `count`.

        Returns:
            The positions, in batches of `batch / count`; and for each batch how many of them count,
            and how many the whole batch has.
        """
        own = batch // self.count
        positions: list[int] = []
        counted: list[tuple[int, int]] = []
        for start in range(0, pictures, batch):
            first = start + self.index * own
            found = range(first, min(first + own, pictures))
            positions += found or [start]
            counted.append((len(found), min(batch, pictures - start)))
        return positions, counted

    def take_batches(self, pictures: int, batch: int) -> list[int]:
        """The positions of the batches that this part predicts, each of them whole."""
        step = batch * self.count
        starts = range(self.index * batch, pictures, step)
        return [
            position for start in starts for position in range(start, min(start + batch, pictures))
        ]


WHOLE = Part()
"""The only process there is."""


def sum_parts(values: Sequence[float] | NDArray[np.float64], device: torch.device) -> list[float]:
    """Add up numbers, each by its position, over all processes: every one gets the same sums."""
    import torch.distributed as dist

    total = torch.tensor(np.asarray(values, np.float64), device=device)
    dist.all_reduce(total)
    return list(total.tolist())


def gather_parts(
    positions: Sequence[int], values: NDArray[np.float64], total: int, device: torch.device
) -> NDArray[np.float64]:
    """Put together what each process has found for its positions; every one gets all, (total,)."""
    mine = np.zeros(total)
    mine[positions] = values
    return np.array(sum_parts(mine, device))


def check_cards(processes: int) -> None:
    """Make sure, before any work, that each process can have a GPU of its own.

    Raises:
        UserError: MAMMOFLOW_DEVICE names one GPU for all, or there are GPUs, but too few.
    """
    named = os.environ.get(VARIABLE)
    if named == "cpu" or (not named and not count_cards()):
        return
    if is_chosen_by_hand():
        raise UserError(
            f"classifier.processes = {processes}, but {VARIABLE} = {named!r} names one GPU for all:"
            f" unset it, or write cpu; CUDA_VISIBLE_DEVICES says which GPUs are used"
        )
    if count_cards() < processes:
        raise UserError(
            f"classifier.processes = {processes}, but torch sees {count_cards()} of this machine's"
            f" GPUs: each process needs one of its own; lower it, or set {VARIABLE}=cpu"
        )


@contextmanager
def join_others() -> Iterator[Part]:
    """Take part in a training of several processes, on the device that `choose_device` then gives.

    torchrun's environment says which process this is. It ends with the one that started it.
    """
    import torch.distributed as dist

    _end_with_parent()
    index, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_cards = not os.environ.get(VARIABLE) and count_cards() > 0
    if on_cards:
        os.environ[VARIABLE] = f"cuda:{os.environ['LOCAL_RANK']}"
    dist.init_process_group("nccl" if on_cards else "gloo", timeout=_PATIENCE)
    try:
        yield Part(index, count)
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when its parent has ended, however that happened: nobody would wait for it.

    torchrun starts it in a session of its own, so that no signal of the parent's group reaches it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_CHECK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_together(module: str, arguments: Sequence[str], processes: int, threads: int) -> None:
    """Run `python -m MODULE ARGUMENTS` in several processes under torchrun, until all have ended.

    Only the first one's lines are shown; what any of them writes to stderr is.

    Args:
        module: to run; what it does, it does in `run_part`.
        arguments: of the module.
        processes: how many.
        threads: of each.

    Raises:
        UserError: one of them could not do its part: its own sentence, or which one died, and
            how it ended.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    silent = ",".join(f"{index}:1" for index in range(1, processes))  # 1: its stdout
    with tempfile.TemporaryDirectory(prefix="together-") as logs:
        options = ["--standalone", f"--nproc-per-node={processes}", f"--log-dir={logs}"]
        options += ["--redirects", silent, "--module", module, *arguments]
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # or torchrun says that it sets it
        try:
            torchrun.run(torchrun.parse_args(options))
        except ChildFailedError as error:
            raise UserError(_describe_failures(error.failures, processes)) from None


def _describe_failures(failures: "dict[int, ProcessFailure]", processes: int) -> str:
    """Say in one sentence why a training of several processes has ended.

    When one dies, the others fail as well, since they wait for it, or torchrun ends them by
    SIGTERM. So one that was killed otherwise, or says itself what the user can mend, is the cause.
    """
    own = {i: found for i, found in failures.items() if found.exitcode != -signal.SIGTERM}
    failures = own or failures
    killed = {index: found for index, found in failures.items() if found.exitcode < 0}
    said = {index: _read_message(found) for index, found in failures.items()}
    for message in said.values():
        if not killed and message.startswith(_SENTENCE):
            return message.removeprefix(_SENTENCE)
    how = [
        f"process {index} of {processes} (counted from 0) "
        + (
            f"was killed by {failures[index].signal_name()}"
            if index in killed
            else f"ended with status {failures[index].exitcode}"
            + (f" ({said[index].splitlines()[0]})" if said[index] else "")
        )
        for index in sorted(killed or failures)
    ]
    return (
        f"{', '.join(how)}, so the training has ended: mend the cause (its own lines are above; a"
        " kill without any may be the system's, for want of memory), and run the stage again,"
        " which goes on after its last complete epoch"
    )


_SENTENCE = f"{UserError.__name__}: "


def _read_message(failure: "ProcessFailure") -> str:
    """What a process said of its failure, with the kind of the error; nothing if it could not."""
    message = failure.error_file_data.get("message", "")
    return str(message["message"]) if isinstance(message, dict) else ""


def run_part(work: Callable[[], None]) -> None:
    """Do the work of one process; a failure is told to the process that called `run_together`.

    Raises:
        SystemExit: the caller says the sentence.
    """
    from torch.distributed.elastic.multiprocessing.errors import record

    def tell() -> None:
        try:
            work()
        except UserError as error:
            raise UserError(str(error)) from None  # whatever its class is: see _SENTENCE

    try:
        record(tell)()
    except UserError:
        sys.exit(1)
