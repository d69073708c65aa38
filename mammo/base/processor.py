"""The processor of this machine: its name, and how many cores of it this process may use."""

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")  # Linux alone has it


def count_cores() -> int:
    """How many cores this process may use.

    A scheduler of jobs or a container may leave it fewer than the machine has.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_processor_name() -> str:
    """The model of the processor; on a system without /proc/cpuinfo, what Python calls it."""
    return read_cpuinfo("model name") or platform.processor() or platform.machine()


def read_cpuinfo(field: str) -> str | None:
    """The first value of a field of /proc/cpuinfo, such as "flags"; None where there is none."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == field), None)
