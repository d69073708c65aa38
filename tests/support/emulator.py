"""Other processors, emulated by qemu's user mode: one process of them at a time."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.imports import ROOT

QEMU = shutil.which("qemu-x86_64")
PROCESSORS = ("Haswell", "EPYC-Milan")

needs_emulator = pytest.mark.skipif(
    QEMU is None, reason="needs another processor, emulated: apt-get install qemu-user"
)


def run_on(processor: str, module: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a module of ours on a processor; on this one if `processor` is empty."""
    qemu = [str(QEMU), "-cpu", processor] if processor else []
    ours = ("MLFLOW_", "PREFECT_", "MAMMOFLOW_")
    kept = {
        name: value
        for name, value in os.environ.items()
        # The last is what ultralytics sets as it is imported into the tests' process.
        if not name.startswith(ours) and not name.endswith("_NUM_THREADS")
    }
    return subprocess.Popen(
        [*qemu, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "MAMMOFLOW_STORE": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
