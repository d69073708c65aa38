"""What a command checks before it starts, creates or logs anything.

If a check fails, the command prints one sentence and exits with 2. All of it takes less than two
seconds if everything answers: no module is imported that brings MLflow or torch.
"""

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flows.processes.reach import CONNECT, require_server
from flows.processes.run_git import succeeds
from mammo.assurance.plan import FILE, load_plan
from mammo.base.errors import UserError
from mammo.base.settings import Params, load_params

MINIMUM = 500_000_000  # bytes that a run needs at least, for its logs, models and databases

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def check_project(root: Path) -> Params:
    """The settings of the project in a folder.

    Raises:
        UserError: if there is no project, git does not know it, or its settings or its plan are
            wrong.
    """
    check_clone(root)
    params = load_params(root / "params.yaml")
    load_plan(root / FILE)
    return params


def check_clone(root: Path) -> None:
    """Make sure that a folder is a clone of a project; its settings are not read.

    Raises:
        UserError: if it is not, or git does not know it.
    """
    for name in ("dvc.yaml", "params.yaml", ".dvc"):
        if not (root / name).exists():
            raise UserError(
                f"{root} is no project of Mammoflow, it has no {name}: go to the folder of a clone"
            )
    if not succeeds(root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}"):
        raise UserError(f"git has no commit in {root}: go to the folder of a clone, or commit")


def check_committed(root: Path) -> None:
    """Make sure that a version could be registered from this folder.

    Raises:
        UserError: naming the code that differs from the commit.
    """
    from flows.snapshots.snapshot import require_committed  # it imports DVC

    require_committed(root)


def check_registry(begin: bool = False) -> None:
    """Make sure that the file, database or server of the registry is there.

    Args:
        begin: accept that a file is missing, since it will be made.

    Raises:
        UserError: within ten seconds, if it is not.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"]
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme in ("http", "https"):
        require_server(uri, "MLflow")
    elif scheme == "sqlite":
        _check_file(Path(unquote(parts.path)[1:]), begin)
    elif scheme in _PORTS and parts.hostname:
        try:
            socket.create_connection(
                (parts.hostname, parts.port or _PORTS[scheme]), CONNECT
            ).close()
        except OSError as error:
            raise UserError(
                f"the registry's database at {parts.hostname} does not answer ({error}); once it "
                f"is back, run this again"
            ) from None


def check_disk(root: Path, wanted: int) -> None:
    """Make sure that the disk has space for `wanted` bytes, and for what any run writes.

    Raises:
        UserError: if it has not.
    """
    free = shutil.disk_usage(root).free
    if free < wanted + MINIMUM:
        raise UserError(
            f"the disk of {root} has {format_bytes(free)} free, and this may take "
            f"{format_bytes(wanted + MINIMUM)}: free space"
        )


def format_bytes(count: int) -> str:
    """A number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _check_file(database: Path, begin: bool) -> None:
    if not database.exists() and not begin:
        raise UserError(
            f"there is no registry {database.absolute()}: set MLFLOW_TRACKING_URI to the team's, or"
            f" begin one with `mammoflow retrain`"
        )
    existing = next(path for path in (database, *database.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"{database.absolute()}: cannot be written: check its permissions")
