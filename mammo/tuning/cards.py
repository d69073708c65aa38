"""Worker processes that train the trials of a round, one on each GPU.

A worker sees its own GPU only, by CUDA_VISIBLE_DEVICES. It trains one trial after the other, tells
the scores of each epoch, and is told whether to go on. It decides nothing itself, so it does not
matter which worker trains what, nor how many there are.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import torch

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Classifier
from mammo.classifier_training.examples import Examples
from mammo.classifier_training.fit import Scores, TrainingDivergedError, fit, rank

CARD = "CUDA_VISIBLE_DEVICES"

Read = Callable[[], tuple[Examples, Examples]]
Report = Callable[[Scores], None]


@dataclass(frozen=True)
class Trial:
    """A training that is wanted: its settings, its seed, and who hears of its epochs."""

    number: int
    settings: Classifier
    seed: int
    report: Report  # called with each epoch's scores; an exception of it ends the training


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial has ended: with its value, or by an exception of its report or its training."""

    value: float | None
    error: Exception | None = None


def train_trial(trial: Trial, train: Examples, validation: Examples) -> float:
    """Train; the value is that of the best epoch."""
    result = fit(trial.settings, train, validation, trial.seed, trial.report)
    best = max(result.history, key=lambda scores: rank(scores, trial.settings))
    return best[f"validation_{trial.settings.select_by}"]


class CardWorkers:
    """Worker processes, one a GPU, that are at work: see `start_workers`."""

    def __init__(self, processes: Mapping[Connection, tuple[str, BaseProcess]]):
        """Take connections, each to a process on the GPU of that name."""
        self._processes = processes

    def train(self, trials: Sequence[Trial]) -> list[TrialOutcome]:
        """Train all of them, as many at once as there are workers; their outcomes, in order.

        Raises:
            UserError: a worker died, or could not read its pictures.
        """
        waiting = list(trials)
        at_work: dict[Connection, Trial] = {}
        outcomes: dict[int, TrialOutcome] = {}
        idle = list(self._processes)
        while waiting or at_work:
            while waiting and idle:
                trial, worker = waiting.pop(0), idle.pop(0)
                at_work[worker] = trial
                self._send(worker, trial, (trial.settings, trial.seed))
            ready = wait(list(at_work))
            for worker in [one for one in at_work if one in ready]:
                trial = at_work[worker]
                kind, content = self._receive(worker, trial)
                if kind == "epoch":
                    try:
                        trial.report(content)
                    except Exception as error:  # noqa: BLE001  (the caller's, who gets it back)
                        outcomes[trial.number] = TrialOutcome(None, error)
                    self._send(worker, trial, trial.number not in outcomes)
                    continue
                if kind == "value":
                    outcomes[trial.number] = TrialOutcome(content)
                elif kind == "diverged":
                    outcomes[trial.number] = TrialOutcome(None, TrainingDivergedError(content))
                elif kind == "sentence":
                    raise UserError(content)
                del at_work[worker]
                idle.append(worker)
        return [outcomes[trial.number] for trial in trials]

    def _send(self, worker: Connection, trial: Trial, message: Any) -> None:
        try:
            worker.send(message)
        except OSError:
            raise self._describe_loss(worker, trial) from None

    def _receive(self, worker: Connection, trial: Trial) -> tuple[str, Any]:
        try:
            kind, content = worker.recv()
        except (EOFError, OSError):
            raise self._describe_loss(worker, trial) from None
        return kind, content

    def _describe_loss(self, worker: Connection, trial: Trial) -> UserError:
        card, process = self._processes[worker]
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return UserError(
            f"the process that trained trial {trial.number} on GPU {card} {how}, so the search has"
            f" ended: mend the cause (a kill may be the system's, for want of memory), and run the"
            f" stage again, which goes on after its last complete round of trials"
        )


@contextmanager
def start_workers(cards: Sequence[str], read: Read) -> Iterator[CardWorkers]:
    """Start a worker for each GPU; they end with the block.

    Args:
        cards: the GPUs, as CUDA_VISIBLE_DEVICES names each.
        read: reads the examples in the worker, those to learn from and those to compare on. It must
            be picklable. The workers share pictures of a file that is mapped into memory.
    """
    context = get_context("spawn")  # a process that has used CUDA cannot be forked
    processes: dict[Connection, tuple[str, BaseProcess]] = {}
    for card in cards:
        ours, theirs = context.Pipe()
        arguments = (card, read, torch.initial_seed(), torch.get_num_threads(), theirs)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the worker's end closes the connection
        processes[ours] = card, process
    try:
        yield CardWorkers(processes)
    finally:
        for connection, (_, worker) in processes.items():
            connection.close()
            worker.terminate()
            worker.join()


class _StoppedError(Exception):
    """The trial is not to go on."""


def _serve(card: str, read: Read, seed: int, threads: int, caller: Connection) -> None:
    """Train what comes over the connection, on one GPU, until it is closed."""
    os.environ[CARD] = card
    pin(seed % 2**32, threads)

    def report(scores: Scores) -> None:
        caller.send(("epoch", scores))
        if not caller.recv():
            raise _StoppedError

    message: tuple[Literal["value", "stopped", "diverged", "sentence"], Any]
    sets: tuple[Examples, Examples] | None = None
    while True:
        try:
            settings, trial_seed = caller.recv()
        except EOFError:
            return
        try:
            sets = sets or read()
            message = "value", train_trial(Trial(0, settings, trial_seed, report), *sets)
        except _StoppedError:
            message = "stopped", None
        except TrainingDivergedError as error:
            message = "diverged", str(error)
        except UserError as error:
            message = "sentence", str(error)
        caller.send(message)
