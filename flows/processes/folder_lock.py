"""Locks between processes, and that of a project's folder: one retrain, and no gc beside it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mammo.base.errors import UserError

TEMPORARY = Path(".dvc/tmp")  # DVC's own, out of git's sight


@contextmanager
def hold_lock(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock of a file or folder, which must exist; however the process ends, it is free.

    Args:
        path: what is locked.
        how: as fcntl.flock takes it; without LOCK_NB it waits.

    Raises:
        BlockingIOError: another process holds it, and `how` says not to wait.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


@contextmanager
def hold_in_clone(root: Path, name: str) -> Iterator[None]:
    """Hold one of a clone's locks, whose file is made if need be; wait while another process does.

    Args:
        root: the clone.
        name: of the lock.
    """
    file = root / TEMPORARY / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with hold_lock(file):
        yield


@contextmanager
def only_one(root: Path, who: str = "another retrain") -> Iterator[None]:
    """Hold the lock of a project's folder; it is released at the latest when the process ends.

    Args:
        root: the folder.
        who: the holder's name, for the message that others get.

    Raises:
        UserError: if another process holds it, or `root` is no DVC project.
    """
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root}: is no project of DVC; run from the project's folder")
    (root / TEMPORARY).mkdir(exist_ok=True)
    # The file is never removed: another process could then lock a new file of the same name.
    with (root / TEMPORARY / "retrain.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process, _, other = file.read().partition(" ")
            raise UserError(
                f"{other or 'another retrain'} is at work in this folder (process {process}): wait "
                f"until it has ended, then run this again"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} {who}")
        file.flush()
        yield
