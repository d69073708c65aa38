"""Which versions a registry has, asked without MLflow: to import that takes seconds.

A file or a database is asked by SQL, a server by MLflow's REST interface. What a server does not
want to say (because of a login that only MLflow knows, for instance) is left to MLflow.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from flows.processes.words import hide_password, put_in_one_line
from flows.tracking.names import MODEL, MOVE, parse_reference
from mammo.base.errors import UserError

# The names are the schema of MLflow's database: pyproject.toml allows one minor version of it.
_ALIAS = "SELECT max(version) FROM registered_model_aliases WHERE name = :model AND alias = :alias"
# MLflow keeps the rows of deleted versions, in a stage of its own.
_VERSION = (
    "SELECT max(version) FROM model_versions WHERE name = :model AND version = :version "
    "AND current_stage != 'Deleted_Internal'"
)
_HIGHEST = "SELECT max(version) FROM model_versions WHERE name = :model"

_PATIENCE = (3.0, 6.0)  # seconds for a server: to connect, to answer
_LONGEST = 9  # digits of a version's number


def find_number(uri: str, reference: str) -> int | None:
    """The number of the version that `3` or `champion` means.

    Args:
        uri: the address of the registry, which answers.
        reference: a number or an alias.

    Returns:
        None if only MLflow can tell.

    Raises:
        UserError: if it is neither, or the registry has no such version.
    """
    name = parse_reference(reference)
    if name.lower() == "latest":  # an alias of MLflow's own
        return None
    numbered = name.isdecimal()
    if numbered and len(name) > _LONGEST:
        found: int | None = 0
    elif urlsplit(uri).scheme in ("http", "https"):
        found = _ask_server_for(uri, name)
    else:
        number = int(name) if numbered else _query(uri, _ALIAS, {"model": MODEL, "alias": name})
        found = _query(uri, _VERSION, {"model": MODEL, "version": number})
    if found == 0:
        raise UserError(f"the registry {hide_password(uri)} has no {MODEL} {reference}")
    return found


def read_highest(uri: str) -> int | None:
    """The highest number that a registry ever gave to a version: the next one is above it.

    Args:
        uri: the address of the registry, which answers.

    Returns:
        0 if it has no version yet; None if only MLflow can tell.

    Raises:
        UserError: if the database cannot be read.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return _query(uri, _HIGHEST, {"model": MODEL})
    name = MODEL.replace("'", "\\'")
    wanted = {"filter": f"name='{name}'", "order_by": "version_number DESC", "max_results": "1"}
    found = _ask(uri, "model-versions/search", wanted)
    model = _ask(uri, "registered-models/get", {"name": MODEL})
    if found is None or model is None:
        return None
    numbers = [int(version["version"]) for version in found.get("model_versions", ())]
    # MLflow does not show what was deleted, but the history of the aliases knows it.
    numbers += [
        int(json.loads(tag["value"])["version"])
        for tag in model.get("registered_model", {}).get("tags", ())
        if tag["key"].startswith(MOVE)
    ]
    return max(numbers, default=0)


def locate_file(uri: str) -> Path:
    """The file that an address of SQLite names."""
    return Path(unquote(urlsplit(uri).path)[1:])


def _ask_server_for(uri: str, name: str) -> int | None:
    """The number of a version by its number or alias; 0 if there is none, None if unknown."""
    if name.isdecimal():
        found = _ask(uri, "model-versions/get", {"name": MODEL, "version": name})
    else:
        found = _ask(uri, "registered-models/alias", {"name": MODEL, "alias": name})
    return None if found is None else int(found.get("model_version", {}).get("version", 0))


def _ask(uri: str, what: str, values: Mapping[str, str]) -> dict[str, Any] | None:
    """What MLflow's REST interface answers; empty if there is no such thing, None if unknown."""
    import requests  # not for every command

    user, token = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "TOKEN"))
    login = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    headers = {"Authorization": f"Bearer {token}"} if token and not login else {}
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/{what}"
    try:
        answer = requests.get(
            address, params=values, auth=login, headers=headers, timeout=_PATIENCE
        )
        said = answer.json()
    except requests.RequestException:
        return None
    if answer.status_code == 200:
        return dict(said)
    missing = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter: of an alias
    return {} if isinstance(said, dict) and said.get("error_code") in missing else None


def _query(uri: str, query: str, values: Mapping[str, str | int]) -> int:
    """The number that a query of MLflow's tables gives; 0 if it gives none.

    Raises:
        UserError: if the database cannot be read, or is none of SQLite's where the address says so.
    """
    if urlsplit(uri).scheme == "sqlite":
        return _query_file(locate_file(uri), query, values)
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        with create_engine(uri, poolclass=NullPool).connect() as rows:
            if not inspect(rows).has_table("model_versions"):
                return 0  # MLflow makes its tables at the first question
            return int(rows.execute(text(query), values).scalar() or 0)
    except SQLAlchemyError as error:
        reason = put_in_one_line(getattr(error, "orig", None) or error)
        raise UserError(f"{hide_password(uri)} cannot be read: {reason}") from None


def _query_file(database: Path, query: str, values: Mapping[str, str | int]) -> int:
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as rows:
            [found] = rows.execute(query, values).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return 0  # MLflow makes its tables at the first question
        raise UserError(f"{database.absolute()} cannot be read ({error})") from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{database.absolute()} is no registry ({error})") from None
    return int(found or 0)
