"""The addresses of artifacts in a clone's own registry, which must lead there from anywhere.

They are `mlflow-artifacts:` ones, see mammoflow_artifacts. Registries that were made before have
absolute paths of the folder that they were made in, and MLflow gives its experiment `Default` one:
`mend` replaces them as soon as the registry is opened.
"""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

from mammo.base.errors import UserError
from mammoflow_artifacts import FOLDER, artifact_repository, sqlite_file

TOP = "mlflow-artifacts:/"
"""The folder of all artifacts: the experiment's, so that each run's is TOP + its id."""

PATIENCE = 60.0  # seconds for which another process may hold the file

_FOLDERS = (("runs", "artifact_uri"), ("logged_models", "artifact_location"))
_COLUMNS = (
    *_FOLDERS,
    ("experiments", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),  # its mlflow.artifactLocation
)
# An absolute path or file:// of any clone; what follows is the same in each.
_OLD = re.compile(rf"(?:file:(?://)?)?(?P<folder>/.*/mlruns/{FOLDER})(?:/(?P<rest>.*))?")
# Where MLflow alone would put an experiment's.
_DEFAULT = re.compile(r"(?:file:(?://)?)?/.*/mlruns/(?P<id>\d+)")


def require_plugin() -> None:
    """Make sure that MLflow knows what `mlflow-artifacts:` means without a server.

    Raises:
        UserError: if the environment was built before the project had it.
    """
    if get_registered_artifact_repositories().get("mlflow-artifacts") is not artifact_repository:
        raise UserError(
            "MLflow would not find the artifacts of this clone's registry: the environment is "
            "older than the project; renew it with `make env`"
        )


def mend(root: Path) -> None:
    """Replace what the registry of a clone, if it is in use, says of the folder where it once was.

    All of it or nothing, by one process at a time. Addresses of anything but some clone's
    `mlruns/artifacts` stay. Artifacts that a copy of a clone has put into the original are copied
    home; nothing there changes.

    Raises:
        UserError: if the registry must be mended and cannot be.
    """
    file, own = sqlite_file(mlflow.get_tracking_uri()), root / "mlruns" / "mlflow.db"
    if file is None or not own.exists() or file.resolve() != own.resolve():
        return  # somebody's other store
    try:
        with closing(sqlite3.connect(own, timeout=PATIENCE, isolation_level=None)) as store:
            if next(_outdated(store), None) is None:
                return  # as nearly always: nobody has to wait
            store.execute("BEGIN IMMEDIATE")
            for table, column, old, new in list(_outdated(store)):
                if (table, column) in _FOLDERS:
                    _bring_home(old, own.parent / FOLDER)
                statement = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"
                store.execute(statement, (new, old))
            store.execute("COMMIT")  # closing without it takes all of it back
    except (sqlite3.Error, OSError, shutil.Error) as error:
        raise UserError(
            f"{own}: its addresses are of another folder and cannot be mended ({error}): once "
            f"nothing else holds the file, run this again"
        ) from None


def _outdated(store: sqlite3.Connection) -> Iterator[tuple[str, str, str, str]]:
    """Table, column, address and what it must be, for each address that names a folder."""
    for table, column in _COLUMNS:
        # A registry of an earlier MLflow lacks some.
        if column not in {row[1] for row in store.execute(f"PRAGMA table_info({table})")}:
            continue
        known = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ? OR {column} LIKE ?"
        for (old,) in store.execute(known, ("file:%", "/%")).fetchall():
            if match := _OLD.fullmatch(old):
                yield table, column, old, TOP + (match["rest"] or "")
            elif table == "experiments" and (match := _DEFAULT.fullmatch(old)):
                yield table, column, old, TOP + match["id"]


def _bring_home(address: str, folder: Path) -> None:
    """Copy artifacts of this registry that lie in another clone, and not in `folder`, into it."""
    match = _OLD.fullmatch(address)
    assert match is not None
    decode = unquote if address.startswith("file:") else str
    there, rest = Path(decode(match["folder"])), Path(decode(match["rest"] or ""))
    here = folder / rest
    if ".." in rest.parts or here.exists() or not (there / rest).is_dir():
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shutil.copytree(there / rest, Path(scratch) / "copy", symlinks=True)
        (Path(scratch) / "copy").rename(here)
