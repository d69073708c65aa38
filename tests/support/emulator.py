"""Other processors, emulated by qemu's user mode: one process of them at a time.

Unless MAMMOFLOW_TEST_PROCESSORS names them (`make processors` does, both), it is one of the other
maker than this machine's: the emulator computes approximate instructions in one way, whatever it is
asked to be, so a second one adds only what asks for the maker.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.support.processes import inherited_environment

QEMU = shutil.which("qemu-x86_64")
NATIVE = "native"
_CPUINFO = Path("/proc/cpuinfo")
_AMD = _CPUINFO.exists() and "AuthenticAMD" in _CPUINFO.read_text()
PROCESSORS = tuple(
    os.environ.get("MAMMOFLOW_TEST_PROCESSORS", "Haswell" if _AMD else "EPYC-Milan").split()
)

SECONDS = 3600
"""That a test may take on two cores that have the other tests to do as well."""


def under_emulators(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs on PROCESSORS."""
    reason = "other processors are emulated by qemu-x86_64: apt-get install qemu-user"
    skipped = pytest.mark.skipif(QEMU is None, reason=reason)
    marked: Callable[..., None] = skipped(
        pytest.mark.processors(pytest.mark.timeout(SECONDS)(test))
    )
    return marked


def outputs_of(module: str, arguments: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a module of ours prints on each processor of `arguments`, all at the same time.

    NATIVE is the machine's own. Whoever fails is told with what it said.
    """
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for processor, more in arguments.items():
            running[processor] = _start(processor, module, *more)
        said = {processor: process.communicate() for processor, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    for processor, process in running.items():
        assert process.returncode == 0, f"{processor}: {''.join(said[processor])}"
    return {processor: output for processor, (output, _) in said.items()}


def _start(processor: str, module: str, *arguments: str) -> "subprocess.Popen[str]":
    emulator = [] if processor == NATIVE else [str(QEMU), "-cpu", processor]
    return subprocess.Popen(
        [*emulator, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**inherited_environment(), "PYTHONPATH": str(ROOT), "MAMMOFLOW_STORE": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
