"""DVC as a command, with those settings that a person makes for working by hand out of the way.

    python -P flows/processes/run_dvc.py repro        # as `dvc repro`

Where a person's files and remotes are stays theirs: `cache.*`, `core.remote`, `remote.*`.
The module is not called dvc: Prefect loads flows by their file, from its folder, and would take it
for the package of that name.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

DVC = (sys.executable, "-P", __file__)
"""The command. It names this file, since it also runs in the folders of commits without it."""

SETTINGS: dict[str, dict[str, Any]] = {
    # It asks before each stage, puts what it wrote into git's index, or leaves git alone.
    "core": {"interactive": False, "autostage": False, "no_scm": False}
}


def make_environment() -> dict[str, str]:
    """What a child needs so that `python` in dvc.yaml is the interpreter that we run on."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main(arguments: list[str]) -> int:
    """Run DVC's own command line; return its status."""
    from dvc.cli import main as run_dvc
    from dvc.config import Config, merge

    load = Config.load_config_to_level

    def load_ours(self: Config, level: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = load(self, level)
        if level is None:
            merge(found, SETTINGS)
        return found

    Config.load_config_to_level = load_ours
    # It runs stages by the person's shell, which may read their files first.
    os.environ["SHELL"] = shutil.which("bash") or "/bin/sh"
    os.environ.pop("BASH_ENV", None)
    return int(run_dvc(arguments))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
