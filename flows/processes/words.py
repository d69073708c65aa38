"""Small helpers that several rooms share: progress, parts of messages, hashes of files."""

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]
"""Reports progress, one line a call."""

SHOWN = 5  # names in one sentence


def shorten_list(names: list[str]) -> str:
    """The first SHOWN names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def put_in_one_line(words: object) -> str:
    """What an error or a program said, in one line."""
    return " ".join(str(words).split())


def write_host(host: str) -> str:
    """A host as addresses write it before a port: one of IPv6 stands in brackets."""
    return f"[{host}]" if ":" in host else host


def describe_unusable(host: str, port: int, error: Exception) -> str:
    """Why nothing can be listened to at an address that `--host` and `--port` name."""
    return f"{host}:{port} cannot be used ({error}): name another --host or --port"


def hide_password(address: str) -> str:
    """An address as others may read it: without the name and the password before the host."""
    return re.sub(r"//[^/@]*@", "//", address)


def advise_install(package: str) -> str:
    """How to add a package that the lock does not have, without moving those that it pins.

    Not what libraries advise, such as `pip install 'dvc[s3]'`: it would replace pinned packages.
    """
    return f"run `uv pip install --constraint requirements.lock {shlex.quote(package)}`"


def advise_package(package: str) -> str:
    """That a package is missing, and how to add it, as the end of a sentence."""
    return f"it takes the package {package}: {advise_install(package)}"


def hash_md5(path: Path) -> str:
    """The hash that DVC gives a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
