"""The fingerprint of a machine's arithmetic, as the code of a given snapshot computes it."""

import json
import sys
from pathlib import Path

from flows.process import follow

FINGERPRINT = Path("mammo/fingerprint.py")


def measure(folder: Path) -> dict[str, str]:
    """One hash for each family of kernels, by its name: see `mammo.fingerprint`.

    In a process of its own, with the pins and threads of the project's own stages.

    Args:
        folder: a project, or a snapshot that was materialised: its code and params.yaml count.

    Returns:
        Nothing if the folder's code is older than the fingerprint.

    Raises:
        CommandError: if it cannot be computed, with the last lines of what it said.
    """
    if not (folder / FINGERPRINT).exists():
        return {}
    command = [sys.executable, "-m", "mammo.fingerprint", "--json"]
    lines = follow(command, folder, lambda line: None, {"PYTHONPATH": str(folder)})
    found = json.loads(lines[-1])
    return {str(family): str(digest) for family, digest in found.items()}
