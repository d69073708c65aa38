"""Small helpers that several rooms share: progress, lists in messages, hashes of files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]
"""Reports progress, one line a call."""

SHOWN = 5  # names in one sentence


def shorten_list(names: list[str]) -> str:
    """The first SHOWN names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
