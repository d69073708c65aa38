"""Work spread over a Dask cluster that is there already, with the same results as on this machine.

    DASK_SCHEDULER=tcp://host:8786 python -m stages.preprocess

Each worker needs this project's code and environment, and sees the project's folder at the same
path. Started in it by

    python -m mammo.pins dask worker tcp://host:8786 --nthreads 1 --nworkers 16

it computes with the instruction sets that the stages are pinned to; one that does not is refused.
What the work returns comes back through Dask, and this process writes it, so a worker that dies
leaves nothing behind; another one does its items again.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mammo.base.determinism import check_pins
from mammo.base.errors import UserError
from mammo.kept.code_version import code_version

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

VARIABLE = "DASK_SCHEDULER"
AHEAD = 4
"""Items that are in hand for each thread of the cluster: more would only fill memory."""

CONNECT = 30.0
"""Seconds in which a scheduler must answer."""

PATIENCE = 120.0
"""Seconds that a cluster may be without any worker."""


def read_scheduler_address() -> str | None:
    """The address of the Dask scheduler that the environment names; None if it names none."""
    return os.environ.get(VARIABLE) or None


def map_over_dask(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    address: str,
    folder: Path,
    module: str,
    libraries: tuple[str, ...],
) -> Iterator[Result | None]:
    """One result an item, in order; None for an item that several workers died of.

    Args:
        work: a function of one of our modules, or a partial of one.
        items: picklable, as must be the results.
        address: of the scheduler.
        folder: one that the workers must see.
        module: the workers' version of it and its imports must be ours,
        libraries: and so must these.

    Raises:
        UserError: there is no cluster, or a worker is not like us.
        Exception: whatever `work` raises.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise UserError(
            f"{VARIABLE}: distributed is not installed; pip install distributed"
        ) from None
    ours = code_version(module, libraries)
    task = partial(_work_if_alike, work, folder, module, libraries, ours)
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError):
        raise UserError(f"{VARIABLE}: no Dask scheduler answers at {address}") from None
    with client:
        pending: deque[Future[Any]] = deque()
        source = iter(items)
        while True:
            room = AHEAD * max(1, sum(client.nthreads().values())) - len(pending)
            for item in islice(source, max(0, room)):  # fewer workers than before: no room
                pending.append(client.submit(task, item, pure=False))
            if not pending:
                return
            try:
                yield _result(client, pending.popleft(), address)
            except KilledWorker:
                yield None


def _result(client: "Client", future: "Future[Any]", address: str) -> Any:
    """Wait for a result as long as somebody may be working on it."""
    while True:
        try:
            return future.result(timeout=PATIENCE)
        except TimeoutError:
            if not client.nthreads():
                raise UserError(
                    f"{VARIABLE}: the cluster at {address} has no workers; start at least one with "
                    "`dask worker`, or unset the variable to work on this machine"
                ) from None


def _work_if_alike(
    work: Callable[[Item], Result],
    folder: Path,
    module: str,
    libraries: tuple[str, ...],
    theirs: str,
    item: Item,
) -> Result:
    """Do the work, in a worker, if the result will be what it would be at home."""
    if code_version(module, libraries) != theirs:
        raise UserError(
            "a Dask worker runs other code or other libraries than this project: bring it to the "
            "same commit and environment, and start it anew"
        )
    check_pins()
    if not folder.is_dir():
        raise UserError(
            f"a Dask worker does not see {folder}: the project's folder must be at the same path "
            "on every machine"
        )
    return work(item)
