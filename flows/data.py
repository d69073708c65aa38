"""Getting the data that data.dvc names."""

import shutil
from collections.abc import Callable
from pathlib import Path

from dvc.repo import Repo

from flows.dvc import DVC
from flows.process import CommandError, follow
from mammo.errors import UserError

DATA = "data"
DATA_FILE = "data.dvc"


def ensure_data(root: Path, say: Callable[[str], None]) -> None:
    """Make `root`/data hold what data.dvc names: as it is, pulled, or the sample made anew.

    Afterwards DVC's cache holds it too, so that a snapshot's data can be found again.

    Raises:
        UserError: if data/ differs from data.dvc, or is absent and can be neither pulled nor made.
    """
    if not (root / DATA_FILE).exists():
        raise UserError(f"{DATA_FILE} is missing: version your data with `dvc add {DATA}`")
    made = False
    if not (root / DATA).exists() and not _pull(root, say):
        from mammo.datasets.phantom import write_phantoms

        say("neither cache nor remote has it: making the sample of phantoms")
        write_phantoms(root / DATA)
        made = True
    same, cached = _compare(root)
    if same and not cached:
        say(f"putting {DATA}/ into DVC's cache")
        follow([*DVC, "commit", "--force", DATA_FILE], root, _ignore)
    elif not same and made:
        shutil.rmtree(root / DATA)
        raise UserError(
            f"the data that {DATA_FILE} names cannot be had: it is neither in the cache nor in a "
            f"remote, and it is not the sample; set a remote with `dvc remote add -d NAME URL`, "
            f"or put the data into {DATA}/"
        )
    elif not same:
        raise UserError(
            f"{DATA}/ is not what {DATA_FILE} names: run `dvc add {DATA}` to version the new data, "
            f"or `dvc checkout {DATA_FILE}` to go back"
        )


def _compare(root: Path) -> tuple[bool, bool]:
    """Whether data/ has the hash that data.dvc names, and whether the cache holds it.

    `dvc status` does not say: where the cache lacks the data, it does not compare them.
    """
    with Repo(str(root)) as repo, repo.lock:
        [out] = repo.find_outs_by_path(str(root / DATA))
        return not out.changed_checksum(), not out.changed_cache()


def _pull(root: Path, say: Callable[[str], None]) -> bool:
    """Whether `dvc pull` brings the data, from the cache or a remote."""
    say(f"{DATA}/ is absent: trying `dvc pull`")
    try:
        follow([*DVC, "pull", DATA_FILE], root, _ignore)
    except CommandError:
        # DVC leaves an empty folder behind when it finds nothing to put into it.
        shutil.rmtree(root / DATA, ignore_errors=True)
        return False
    return (root / DATA).exists()


def _ignore(line: str) -> None:
    """DVC's chatter is of no interest here; a failure quotes it."""
