"""Whether DVC's default remote can be used; asked before any work.

Its own client would import much, try again for minutes, and say little. So no file is looked for,
and no password is tried: a folder must be there or can be made, a server must take a
connection, and the package that speaks with it must be installed.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dvc.config import Config, ConfigError

from flows.processes.reach import describe_no_connection, describe_silence
from flows.processes.words import advise_package, put_in_one_line
from mammo.base.errors import UserError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_PACKAGE = re.compile(r"requires '([^']+)' to be installed")


@dataclass(frozen=True)
class Remote:
    """DVC's default remote."""

    name: str
    url: str  # a folder is written out in full
    settings: Mapping[str, Any]  # everything else that DVC's configuration says of it


def find_default_remote(root: Path) -> Remote | None:
    """The default remote, by the four files of DVC's configuration; None if there is none.

    Raises:
        UserError: if the configuration is wrong, or the default remote is not in it.
    """
    try:
        config = Config(str(root / ".dvc"))
        name = config["core"].get("remote")
        if not name:
            return None
        settings = config["remote"].get(name)
    except ConfigError as error:
        raise UserError(f"DVC's configuration: {put_in_one_line(error)}") from None
    if settings is None:
        raise UserError(
            f"DVC's default remote is {name}, and its configuration has no such remote: name one "
            f"of `dvc remote list` with `dvc remote default NAME`"
        )
    return Remote(str(name), str(settings["url"]), settings)


def require_default_remote(root: Path) -> None:
    """Make sure that the default remote can be used, if there is one.

    Raises:
        UserError: within ten seconds, if it cannot.
    """
    remote = find_default_remote(root)
    if remote is not None and (fault := _find_fault(remote)):
        raise UserError(f"DVC's remote {remote.name} cannot be used from this clone: {fault}")


def _find_fault(remote: Remote) -> str:
    """Why a remote cannot be used, in words; empty if nothing speaks against it."""
    scheme = urlsplit(remote.url).scheme
    if scheme in ("", "file", "local"):
        return _find_fault_of_folder(Path(urlsplit(remote.url).path if scheme else remote.url))
    if package := _find_missing_package(scheme):
        return advise_package(package)
    if scheme == "ssh":
        return _ask_ssh(remote)
    if address := _find_address(remote, scheme):
        return describe_silence(address)
    return ""  # only its own library knows where it is


def _find_fault_of_folder(folder: Path) -> str:
    """As `_find_fault`; DVC makes the folder itself, but an absent disk it would write beside."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is no folder"
    if not os.access(existing, os.R_OK | os.X_OK):
        return f"{existing} cannot be read: check its permissions"
    if existing != folder and not os.access(existing, os.W_OK):
        return f"there is no folder {folder}, and none can be made: is its disk mounted?"
    return ""


def _find_missing_package(scheme: str) -> str | None:
    """The package that DVC needs for a kind of remote and that is missing; None if none is."""
    from dvc_objects.fs import known_implementations  # it imports fsspec

    known: dict[str, str] | None = known_implementations.get(scheme)
    if known is None or find_spec(known["class"].partition(".")[0]) is not None:
        return None
    named = find_package_to_install(known.get("err", ""))
    return named or known["class"].partition(".")[0].replace("_", "-")


def find_package_to_install(said: str) -> str | None:
    """The package that DVC asks for in a message of its own; None if it asks for none."""
    found = _PACKAGE.search(said)
    return found[1] if found else None


def _ask_ssh(remote: Remote) -> str:
    """As `_find_fault`, of an SSH server; by the person's own configuration of ssh."""
    parts = urlsplit(remote.url)
    host = str(remote.settings.get("host") or parts.hostname or "")
    named = _read_ssh_config(host)
    if {"proxyjump", "proxycommand"} & named.keys():
        return ""  # there is another machine in between
    port = remote.settings.get("port") or parts.port or named.get("port") or 22
    return describe_no_connection(named.get("hostname", host), int(port))


def _read_ssh_config(host: str) -> dict[str, str]:
    """What `ssh` would do to reach a host; empty if there is no such program."""
    try:
        said = subprocess.run(
            ["ssh", "-G", "--", host], capture_output=True, text=True, check=False, timeout=5
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = (line.partition(" ") for line in said.splitlines())
    return {name: value for name, _, value in lines if value != "none"}


def _find_address(remote: Remote, scheme: str) -> str | None:
    """The address of the server that speaks HTTP, as far as it is told; None if it is not."""
    if scheme in ("http", "https"):
        return remote.url
    if scheme in ("webdav", "webdavs"):
        return remote.url.replace("webdav", "http", 1)
    if endpoint := remote.settings.get("endpointurl"):
        return str(endpoint)
    named = (os.environ.get(name) for name in _ENDPOINTS)
    return next((address for address in named if address), None) if scheme == "s3" else None
