"""A stage that dies in the middle of its work, as a machine that loses its power would end it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.imports import ROOT


def run_killed(script: str, *arguments: Path) -> None:
    """Run Python code that kills its own process; arguments are in its `sys.argv`."""
    command: list[str | Path] = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == -9
