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


def hide_password(address: str) -> str:
    """An address as others may read it: without the name and the password before the host."""
    return re.sub(r"//[^/@]*@", "//", address)


def advise_install(package: str) -> str:
    """How to add a package that the lock does not have, without moving those that it pins.

    Not what libraries advise, such as `pip install 'dvc[s3]'`: it would replace pinned packages.
    """
    return f"run `uv pip install --constraint requirements.lock {shlex.quote(package)}`"


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
