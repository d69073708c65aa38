"""DVC's own objects for a project, while DVC's lock keeps other processes out of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.repo import Repo, lock_repo


@contextmanager
def open_locked(root: Path) -> Iterator[Repo]:
    """The project in `root`, under DVC's lock; wait while another process holds it.

    Raises:
        DvcException: if `root` is no project of DVC.
    """
    with Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
        yield repo
