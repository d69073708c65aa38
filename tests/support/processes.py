"""Processes that tests start: their environment, and whether they live."""

import os
import time
from pathlib import Path


def inherited_environment() -> dict[str, str]:
    """The environment of this process, without what would point a child elsewhere.

    Nor what libraries set in this process as they were imported: ultralytics sets OMP_NUM_THREADS.
    """
    ours = ("MLFLOW_", "PREFECT_", "MAMMOFLOW_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.endswith("_NUM_THREADS")
    }


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process comes to its end within so many seconds."""
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)
