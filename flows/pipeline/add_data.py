"""Adds new exams to data/, all of them or none, and versions the result.

mammoflow data add DIR
"""

import shutil
from pathlib import Path

from flows.pipeline.ensure_data import DATA, check_own, ensure_data
from flows.processes.follow import CommandError, follow, ignore
from flows.processes.run_dvc import DVC
from flows.processes.words import Say
from flows.snapshots.snapshot import DATA_FILE
from mammo.base.atomic_files import write_bytes
from mammo.base.errors import UserError
from mammo.datasets.merge import merge


def add_data(root: Path, folder: Path, say: Say) -> int:
    """Merge a folder in the layout of data/ into `root`/data and run `dvc add` on it.

    The merged folder is made beside data/, and replaces it in one step. If anything fails, data/
    and data.dvc are as before. If the process is killed, data/ may be absent: the next
    `mammoflow retrain` restores it from DVC's cache.

    Returns:
        How many images were added.

    Raises:
        UserError: if data/ is not this project's own, or not what data.dvc names, or `folder`
            cannot be merged into it.
    """
    check_own(root)
    ensure_data(root, say)
    data, merged, before = root / DATA, root / f".{DATA}.merged", root / f".{DATA}.before"
    if before.exists():
        shutil.rmtree(before)  # of a killed process: ensure_data has seen that the cache has it
    named = (root / DATA_FILE).read_bytes()
    shutil.rmtree(merged, ignore_errors=True)
    try:
        count = merge(data, folder, merged)
        say(f"adding {count} images to {DATA}/")
        data.replace(before)
        merged.replace(data)
        follow([*DVC, "--wait-for-lock", "add", "--quiet", DATA], root, ignore)
    except BaseException as error:
        _put_back(data, before)
        write_bytes(root / DATA_FILE, named)
        shutil.rmtree(merged, ignore_errors=True)
        if isinstance(error, CommandError):
            raise UserError(f"dvc add {DATA}: {error}; everything is as before") from None
        raise
    shutil.rmtree(before)
    return count


def _put_back(data: Path, before: Path) -> None:
    """Undo the replacement, however far it got."""
    if before.exists():
        shutil.rmtree(data, ignore_errors=True)
        before.replace(data)
