"""Work on many items in processes of their own, so that one bad item can neither kill nor stall it.

Workers stay alive from item to item; one that dies or hangs is replaced, and only the item that it
worked on has no result.
"""

import contextlib
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Generic, Literal, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from mammo.base.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

MEMORY = 4 * 2**30
"""Bytes of address space of a worker: a bad file ends as its MemoryError, not with the machine.

A worker that has imported what it needs has about 1 GiB, most of it never touched.
"""


@dataclass(frozen=True)
class Failure:
    """Why there is no result of an item: its worker did not come back."""

    how: Literal["crashed", "hung"]


@dataclass(frozen=True)
class WorkerPool(Generic[Item, Result]):
    """How to do `work`, which must be picklable, as must its items and results."""

    work: Callable[[Item], Result]
    workers: int  # processes
    seconds: float  # that an item may take
    initializer: Callable[[], object] | None = None  # called once in each process
    preload: tuple[str, ...] = ()  # modules imported once, before processes are forked

    def map(self, items: Iterable[Item]) -> Iterator[Result | Failure]:
        """One result an item, in order.

        An item at which a worker dies is tried once more, since the machine may have run out of
        memory for no fault of its own. One that takes too long is not: the limit should be far
        above what any good item takes on a busy machine.

        Raises:
            UserError: the processes cannot be started.
            Exception: whatever `work` raises, with the worker's traceback as its cause.
        """
        waiting = list(items)
        while waiting:
            done = 0
            try:
                for result in self._map(waiting):
                    done += 1
                    yield result
            except BrokenProcessPool:  # as when the machine kills a worker that has no item
                if not done:
                    raise UserError(
                        "the worker processes die before they have any work: the machine may be "
                        "out of memory or of processes"
                    ) from None
            waiting = waiting[done:]

    def _map(self, items: list[Item]) -> Iterator[Result | Failure]:
        # Not forked from here, where torch and OpenCV may have started threads.
        context = get_context("forkserver")
        context.set_forkserver_preload(list(self.preload))
        with ProcessPool(
            self.workers, initializer=_start, initargs=(self.initializer,), context=context
        ) as pool:
            try:
                futures = [self._submit(pool, item) for item in items]
                for item, future in zip(items, futures, strict=True):
                    yield self._result(pool, item, future)
            finally:
                pool.stop()

    def _submit(self, pool: ProcessPool, item: Item) -> "ProcessFuture[Result]":
        return pool.schedule(self.work, args=[item], timeout=self.seconds)

    def _result(
        self, pool: ProcessPool, item: Item, future: "ProcessFuture[Result]"
    ) -> Result | Failure:
        for last in (False, True):
            try:
                return future.result()
            except TimeoutError as error:
                if error.__cause__ is not None:  # the work's own, with the worker's traceback
                    raise
                return Failure("hung")
            except ProcessExpired:
                if not last:
                    future = self._submit(pool, item)
        return Failure("crashed")


def _start(initializer: Callable[[], object] | None) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there, or macOS: none is
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if initializer is not None:
        initializer()
