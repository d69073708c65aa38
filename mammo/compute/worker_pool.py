"""Work on many items in processes of their own, so that one bad item can neither kill nor stall it.

Workers stay alive from item to item; one that dies or hangs is replaced, and only the item that it
worked on has no result.
"""

import contextlib
import resource
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
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
        """One result an item, in order; only a few items are ahead of the result that is taken.

        An item at which a worker dies is tried once more, since the machine may have run out of
        memory for no fault of its own. One that takes too long is not: the limit should be far
        above what any good item takes on a busy machine.

        Raises:
            UserError: the processes cannot be started.
            Exception: whatever `work` raises, with the worker's traceback as its cause.
        """
        coming = iter(items)
        with self.start() as workers:
            ahead = deque((item, workers.submit(item)) for item in islice(coming, self._ahead))
            while ahead:
                item, future = ahead.popleft()
                result = workers.result(item, future)
                ahead.extend((item, workers.submit(item)) for item in islice(coming, 1))
                yield result

    @property
    def _ahead(self) -> int:
        """Items that are with the workers at once: none of them waits, and memory is bounded."""
        return 8 * self.workers

    @contextmanager
    def start(self) -> Iterator["Workers[Item, Result]"]:
        """The processes, at work until the block ends."""
        workers = Workers(self)
        try:
            yield workers
        finally:
            workers.stop()


class Workers(Generic[Item, Result]):
    """Worker processes that are at work; several threads may use them."""

    def __init__(self, how: WorkerPool[Item, Result]):
        """Start them as they are needed."""
        self._how = how
        self._lock = threading.Lock()
        self._pool = self._fresh_pool()
        self._useful = False  # whether the pool has given a result
        self._stopped = False

    def do(self, item: Item) -> Result | Failure:
        """The result of one item, as `WorkerPool.map` describes it."""
        return self.result(item, self.submit(item))

    def submit(self, item: Item) -> "ProcessFuture[Result]":
        """Hand over an item; `result` waits for what comes of it."""
        with self._lock:
            try:
                return self._schedule(item)
            except (BrokenProcessPool, RuntimeError):  # the latter: it was stopped as it broke
                self._replace_pool()
                return self._schedule(item)

    def result(self, item: Item, future: "ProcessFuture[Result]") -> Result | Failure:
        """Wait for the result of an item that was handed over."""
        died = False
        while True:
            try:
                result = future.result()
            except TimeoutError as error:
                if error.__cause__ is not None:  # the work's own, with the worker's traceback
                    raise
                return Failure("hung")
            except ProcessExpired:
                if died:
                    return Failure("crashed")
                died = True
                future = self.submit(item)
            except (BrokenProcessPool, CancelledError):
                # As when the machine kills a worker that has no item: nobody's fault.
                future = self.submit(item)
            else:
                self._useful = True
                return result

    def stop(self) -> None:
        """End the processes; items without a result have none."""
        with self._lock:
            self._stopped = True
            self._pool.stop()
            self._pool.join()

    def _fresh_pool(self) -> ProcessPool:
        # Not forked from this process, where torch and OpenCV may have started threads.
        context = get_context("forkserver")
        context.set_forkserver_preload(list(self._how.preload))
        return ProcessPool(
            self._how.workers,
            initializer=_start,
            initargs=(self._how.initializer,),
            context=context,
        )

    def _schedule(self, item: Item) -> "ProcessFuture[Result]":
        return self._pool.schedule(self._how.work, args=[item], timeout=self._how.seconds)

    def _replace_pool(self) -> None:
        """Start anew what has broken, unless it breaks before it was of any use.

        Raises:
            UserError: the processes die before they have done anything.
        """
        if self._stopped:
            raise RuntimeError("the workers were stopped")
        if not self._useful:
            raise UserError(
                "the worker processes die before they have any work: the machine may be out of "
                "memory or of processes"
            )
        self._pool.stop()
        self._pool.join()
        self._pool, self._useful = self._fresh_pool(), False


def _start(initializer: Callable[[], object] | None) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there, or macOS: none is
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if initializer is not None:
        initializer()
