"""`mammoflow gc` removes what retraining leaves behind over time.

    mammoflow gc                    # shows what would go
    mammoflow gc --yes
    mammoflow gc --yes --remote     # on DVC's default remote, too, which others share

Three things are never removed: what the audit of a registered version needs, what the working tree
or a commit with a name in git refers to, and what another process works with. The rest is removed
when it is old enough: `flows.pruning.policy.PruningPolicy`.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from httpx import HTTPError

from flows.pipeline.locked_repo import open_locked
from flows.processes.folder_lock import only_one
from flows.processes.prefect_home import DATABASE, LOGS
from flows.processes.run_git import git
from flows.processes.words import Say
from flows.pruning.objects import find_superseded_objects
from flows.pruning.policy import PruningPolicy, Survey, Waste
from flows.pruning.records import find_old_flow_runs, find_unregistered_runs
from flows.snapshots.snapshot import lock_snapshots, make_snapshots_folder
from flows.tracking.addresses import PATIENCE, locate_registry
from flows.tracking.registry import FAULTS
from mammo.base.errors import UserError
from mammo.kept.result_store import open_store

LONG_LOG, END_OF_LOG = 10_000_000, 1_000_000  # bytes

MANY = 2000  # objects of git that are worth packing
MINIMUM = 1_000_000  # free bytes in an SQLite file that are worth writing it anew


@contextmanager
def exclude_others(root: Path) -> Iterator[None]:
    """Keep retrains, audits, a worker's stages and a person's DVC out of a clone.

    Raises:
        UserError: if one of them works there, or `root` is no project of DVC.
    """
    with (
        only_one(root, "mammoflow gc"),
        lock_snapshots(root),
        open_locked(root),
    ):
        yield


def find_waste(root: Path, policy: PruningPolicy) -> Survey:
    """Find what is no longer needed; nothing changes.

    Args:
        root: a clone that is held by `exclude_others` until all of it is removed.
        policy: what may be removed.

    Raises:
        UserError: if a server does not answer, or it cannot be told what is needed.
    """
    before = policy.before
    found = Survey()
    found += find_old_flow_runs(root, before)
    found += find_unregistered_runs(root, before)
    found += find_superseded_objects(root, before, policy.remote)
    found += Survey(
        [
            _find_worktrees(root),
            _find_checkpoints(root, before),
            _find_results(before),
            _find_logs(root),
        ]
    )
    # The databases last: removing the others frees space in them.
    return found + Survey([_find_unpacked(root), _find_databases(root)])


def remove(found: Survey, say: Say) -> None:
    """Remove what was found.

    Raises:
        UserError: after the rest was removed, if a part of it could not be.
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


def _find_worktrees(root: Path) -> Waste:
    """Folders of snapshots; nobody works in them, since `exclude_others` holds them all."""
    left = [path for path in make_snapshots_folder(root).iterdir() if path.is_dir()]

    def remove_all() -> None:
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        git(root, "worktree", "prune")

    return Waste(
        "folders of audits and stages that were killed", len(left), _measure(left), remove_all
    )


def _find_checkpoints(root: Path, before: float) -> Waste:
    folder = Path(os.environ.get("MAMMOFLOW_CHECKPOINTS", root / "checkpoints"))
    return _find_old_files("checkpoints of trainings that were not continued", folder, before)


def _find_results(before: float) -> Waste:
    store = open_store()
    what = "kept results of single images that were not used"
    return Waste(what) if store is None else _find_old_files(what, store.folder, before)


def _find_old_files(what: str, folder: Path, before: float) -> Waste:
    files = [
        path for path in folder.rglob("*") if path.is_file() and _read_change_time(path) < before
    ]

    def remove_all() -> None:
        for path in files:
            if _read_change_time(path) < before:  # it may have been used meanwhile
                path.unlink(missing_ok=True)

    return Waste(what, len(files), _measure(files), remove_all)


def _find_logs(root: Path) -> Waste:
    """Output of the programs of `mammoflow up`, except its end; the programs go on writing."""
    logs = [path for path in (root / LOGS).glob("*.log") if path.stat().st_size > LONG_LOG]

    def remove_all() -> None:
        for path in logs:
            with path.open("r+b") as file:  # the same file: its program appends to it
                file.seek(-END_OF_LOG, os.SEEK_END)
                end = file.read()
                file.truncate(0)
                file.seek(0)
                file.write(end)

    size = sum(path.stat().st_size - END_OF_LOG for path in logs)
    return Waste("logs of `mammoflow up`, all but the last megabyte", len(logs), size, remove_all)


def _find_unpacked(root: Path) -> Waste:
    """Objects that git has not packed: `run_git` does not let git do it in the background."""
    counted = dict(line.split(": ") for line in git(root, "count-objects", "-v").splitlines())
    count = int(counted["count"])

    def remove_all() -> None:
        # Without pruning: a commit that only a record in MLflow refers to must stay.
        git(root, "gc", "--quiet", "--no-prune")

    if count < MANY:
        return Waste("objects that git has not packed")
    size = int(counted["size"]) * 1024
    return Waste("objects that git has not packed", count, size, remove_all)


def _find_databases(root: Path) -> Waste:
    """The SQLite files of Prefect and MLflow, which do not shrink when rows are deleted."""

    def find_shrinkable() -> list[Path]:
        files = (root / DATABASE, locate_registry(root))
        return [path for path in files if path.exists() and _count_free_bytes(path) >= MINIMUM]

    def remove_all() -> None:
        for path in find_shrinkable():  # looked up again: what was removed was in them
            try:
                with closing(
                    sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
                ) as database:
                    database.execute("VACUUM")
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise UserError(
                    f"{path} cannot be made smaller ({error}): run this again when no other "
                    f"process uses it"
                ) from None

    found = find_shrinkable()
    free = sum(map(_count_free_bytes, found))
    return Waste("free space in SQLite files", len(found), free, remove_all)


def _count_free_bytes(path: Path) -> int:
    try:
        with closing(
            sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
        ) as database:
            [pages] = database.execute("PRAGMA freelist_count").fetchone()
            [size] = database.execute("PRAGMA page_size").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read ({error}): is it a SQLite file?") from None
    return int(pages) * int(size)


def _read_change_time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _measure(paths: list[Path]) -> int:
    """The bytes of files, and of everything in folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
