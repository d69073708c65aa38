"""What several rooms say or ask of files in the same way."""

import hashlib
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], None]
"""Tells whoever watches, line by line."""

SHOWN = 5  # culprits named in one sentence


def some(names: list[str]) -> str:
    """The first few of the culprits, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
