"""The addresses of artifacts in a clone's own registry: none names a folder of this machine.

They begin with `mlflow-artifacts:`, see mammoflow_artifacts. An older registry has absolute paths
of the folder that it was made in, and MLflow gives its experiment `Default` such a path. `mend`
replaces them when the registry is opened.
"""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

from mammo.base.errors import UserError
from mammoflow_artifacts import FOLDER, artifact_repository, sqlite_file

TOP = "mlflow-artifacts:/"
"""The folder of all artifacts: the experiment's, so that each run's is TOP + its id."""

PATIENCE = 60.0  # seconds that another process may hold an SQLite file

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
# The folder that MLflow itself gives to an experiment.
_DEFAULT = re.compile(r"(?:file:(?://)?)?/.*/mlruns/(?P<id>\d+)")


def locate_registry(root: Path) -> Path:
    """The SQLite file of a clone's own registry."""
    return root / "mlruns" / "mlflow.db"


def require_plugin() -> None:
    """Make sure that MLflow knows what `mlflow-artifacts:` means without a server.

    Raises:
        UserError: if the environment was built before the project had it.
    """
    registered: Mapping[str, object] = get_registered_artifact_repositories()
    if registered.get("mlflow-artifacts") is not artifact_repository:
        raise UserError(
            "MLflow would not find the artifacts of this clone's registry: the environment is "
            "older than the project; renew it with `make env`"
        )


def mend(root: Path) -> None:
    """Replace the addresses in a clone's own registry that name the folder where it once was.

    Either all of them are replaced or none, by one process at a time. An address that names no
    clone's `mlruns/artifacts` stays. If a copied clone has written artifacts into the original,
    they are copied into this clone, and the original does not change. If another store is in use
    than the clone's own, nothing happens.

    Raises:
        UserError: if the registry must be mended and cannot be.
    """
    file, own = sqlite_file(mlflow.get_tracking_uri()), locate_registry(root)
    if file is None or not own.exists() or file.resolve() != own.resolve():
        return  # another store is in use
    try:
        with closing(sqlite3.connect(own, timeout=PATIENCE, isolation_level=None)) as store:
            if next(_find_outdated(store), None) is None:
                return  # as nearly always: no lock is needed
            store.execute("BEGIN IMMEDIATE")
            for table, column, old, new in list(_find_outdated(store)):
                if (table, column) in _FOLDERS:
                    _copy_into_clone(old, own.parent / FOLDER)
                statement = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608  (names of ours)
                store.execute(statement, (new, old))
            store.execute("COMMIT")  # closing without it undoes everything
    except (sqlite3.Error, OSError, shutil.Error) as error:
        raise UserError(
            f"{own}: its addresses are of another folder and cannot be mended ({error}): once "
            f"nothing else holds the file, run this again"
        ) from None


def _find_outdated(store: sqlite3.Connection) -> Iterator[tuple[str, str, str, str]]:
    """Table, column, old address and new one, for each address that names a folder."""
    for table, column in _COLUMNS:
        # A registry of an earlier MLflow lacks a few of the columns.
        if column not in {row[1] for row in store.execute(f"PRAGMA table_info({table})")}:
            continue
        known = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE ? OR {column} LIKE ?"  # noqa: S608  (names of ours)
        for (old,) in store.execute(known, ("file:%", "/%")).fetchall():
            if match := _OLD.fullmatch(old):
                yield table, column, old, TOP + (match["rest"] or "")
            elif table == "experiments" and (match := _DEFAULT.fullmatch(old)):
                yield table, column, old, TOP + match["id"]


def _copy_into_clone(address: str, folder: Path) -> None:
    """Copy artifacts of this registry from another clone into `folder`, unless they are there."""
    match = _OLD.fullmatch(address)
    assert match is not None
    decode = unquote if address.startswith("file:") else str
    source, rest = Path(decode(match["folder"])), Path(decode(match["rest"] or ""))
    target = folder / rest
    if ".." in rest.parts or target.exists() or not (source / rest).is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shutil.copytree(source / rest, Path(scratch) / "copy", symlinks=True)
        (Path(scratch) / "copy").rename(target)
