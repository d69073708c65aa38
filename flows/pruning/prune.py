"""What a year of retraining leaves behind, and `mammoflow gc`, which takes it away.

    mammoflow gc                    # shows what would go
    mammoflow gc --yes
    mammoflow gc --yes --remote     # on DVC's default remote, too, which others share

Never taken is what a registered version needs to be audited, what the working tree names or any
commit that git has a name for, and what somebody is at work with. All the rest goes by its age:
`flows.pruning.policy.Policy`.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dvc.repo import Repo
from httpx import HTTPError

from flows.processes.folder_lock import only_one
from flows.processes.run_git import git
from flows.processes.words import Say
from flows.pruning.objects import superseded
from flows.pruning.policy import Found, Policy, Waste
from flows.pruning.records import old_flow_runs, unregistered_runs
from flows.snapshots.snapshot import lock_snapshots, snapshots_folder
from flows.tracking.registry import FAULTS
from mammo.base.errors import UserError
from mammo.compute.result_store import open_store

LONG_LOG, END_OF_LOG = 10_000_000, 1_000_000  # bytes

LOOSE = 2000  # objects of git for which it is worth while to pack them
ROOM = 1_000_000  # bytes in an SQLite file for which it is worth while to write it anew
BUSY = 60.0  # seconds that another process may hold it


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep retrains, audits, a worker's stages and a person's DVC out of a clone.

    Raises:
        UserError: if one is at work there, or `root` is no project of DVC.
    """
    with (
        only_one(root, "mammoflow gc"),
        lock_snapshots(root),
        Repo(str(root), _wait_for_lock=True) as repo,
        repo.lock,
    ):
        yield


def look(root: Path, policy: Policy) -> Found:
    """Find what is no longer needed; nothing changes.

    Args:
        root: a clone that is held by `alone` until all of it is removed.
        policy: see there.

    Raises:
        UserError: if a server does not answer, or what is needed cannot be told.
    """
    before = policy.before
    found = Found()
    found += old_flow_runs(root, before)
    found += unregistered_runs(root, before)
    found += superseded(root, before, policy.remote)
    found += Found([_worktrees(root), _checkpoints(root, before), _results(before), _logs(root)])
    # The databases last: what goes before makes room in them.
    return found + Found([_loose(root), _databases(root)])


def remove(found: Found, say: Say) -> None:
    """Remove what was found.

    Raises:
        UserError: naming what could not be removed, when all the rest is gone.
    """
    failures = []
    for waste in found.wastes:
        if waste.count:
            say(f"removing {waste.what}")
        try:
            waste.remove()
        except (UserError, OSError, HTTPError, *FAULTS) as error:
            failures.append(f"{waste.what}: {error}")
    if failures:
        raise UserError(f"not all of it could be removed; {'; '.join(failures)}")


def _worktrees(root: Path) -> Waste:
    """Snapshots that nobody is in, since `alone` holds them all."""
    left = [path for path in snapshots_folder(root).iterdir() if path.is_dir()]

    def go() -> None:
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        git(root, "worktree", "prune")

    return Waste("folders of audits and stages that were killed", len(left), _size(left), go)


def _checkpoints(root: Path, before: float) -> Waste:
    folder = Path(os.environ.get("MAMMOFLOW_CHECKPOINTS", root / "checkpoints"))
    return _old_files("checkpoints of trainings that nobody took up again", folder, before)


def _results(before: float) -> Waste:
    store = open_store()
    what = "remembered results of single images, not used since"
    return Waste(what) if store is None else _old_files(what, store.folder, before)


def _old_files(what: str, folder: Path, before: float) -> Waste:
    files = [path for path in folder.rglob("*") if path.is_file() and _changed(path) < before]

    def go() -> None:
        for path in files:
            if _changed(path) < before:  # somebody may have used it meanwhile
                path.unlink(missing_ok=True)

    return Waste(what, len(files), _size(files), go)


def _logs(root: Path) -> Waste:
    """What the programs of `mammoflow up` have said, but for its end; they go on writing."""
    logs = [
        path for path in (root / ".prefect" / "up").glob("*.log") if path.stat().st_size > LONG_LOG
    ]

    def go() -> None:
        for path in logs:
            with path.open("r+b") as file:  # the same file: its program appends to it
                file.seek(-END_OF_LOG, os.SEEK_END)
                end = file.read()
                file.truncate(0)
                file.seek(0)
                file.write(end)

    size = sum(path.stat().st_size - END_OF_LOG for path in logs)
    return Waste("logs of `mammoflow up`, all but the last megabyte", len(logs), size, go)


def _loose(root: Path) -> Waste:
    """What git has not packed: `run_git` lets it do nothing by itself, in the background."""
    counted = dict(line.split(": ") for line in git(root, "count-objects", "-v").splitlines())
    count = int(counted["count"])

    def go() -> None:
        # Without pruning: a commit that only a record of MLflow's names stays.
        git(root, "gc", "--quiet", "--no-prune")

    if count < LOOSE:
        return Waste("objects that git has not packed")
    size = int(counted["size"]) * 1024
    return Waste("objects that git has not packed", count, size, go)


def _databases(root: Path) -> Waste:
    """The SQLite files of Prefect and MLflow, which keep the room of what was deleted in them."""

    def roomy() -> list[Path]:
        files = (root / ".prefect" / "prefect.db", root / "mlruns" / "mlflow.db")
        return [path for path in files if path.exists() and _free_bytes(path) >= ROOM]

    def go() -> None:
        for path in roomy():  # more than before: what went was in them
            try:
                with closing(sqlite3.connect(path, timeout=BUSY, isolation_level=None)) as database:
                    database.execute("VACUUM")
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise UserError(
                    f"{path} cannot be made smaller ({error}): run this again once nothing is at "
                    f"work with it"
                ) from None

    found = roomy()
    return Waste("room in SQLite files", len(found), sum(map(_free_bytes, found)), go)


def _free_bytes(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY)) as database:
            [pages] = database.execute("PRAGMA freelist_count").fetchone()
            [size] = database.execute("PRAGMA page_size").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read ({error}): is it a SQLite file?") from None
    return int(pages) * int(size)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(paths: list[Path]) -> int:
    """Bytes of files, and of all that is in folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
