"""A whole small project in a folder of its own: our code, real git, real DVC, tiny phantoms."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mammo.datasets.phantom import write_phantoms
from tests.imports import ROOT

TINY = {
    "preprocess": {"long_side": 192},
    "split": {"validation": 0.3, "test": 0.3},
    "detector": {"image_size": 64, "epochs": 2},
    "classifier": {"image_height": 96, "image_width": 64, "epochs": 1, "batch_size": 8},
    "tune": {"trials": 2, "epochs": 1},
    "evaluate": {"bootstrap": 100},
    "explain": {"images": 1},
}
CODE = ("mammo", "stages", "flows", "dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore")


def command(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a project with our interpreter's folder first; a failure shows its output.

    Nothing that this test run has in its environment may point the project elsewhere.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env["DVC_NO_ANALYTICS"] = "1"
    env["PYTHONPATH"] = str(root)  # the copy's code, not the one installed
    result = subprocess.run(
        arguments, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if check:
        assert result.returncode == 0, result.stdout
    return result


def mammoflow(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line of the project's own code."""
    return command(root, sys.executable, "-m", "flows.cli", *arguments, check=check)


def make_project(root: Path) -> None:
    """Our code with small settings and a small data set, committed."""
    root.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in TINY.items():
        params[section].update(changes)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command(root, "git", "init", "-q", "-b", "main")
    command(root, "git", "config", "user.name", "Tester")
    command(root, "git", "config", "user.email", "tester@localhost")
    command(root, "dvc", "init", "-q")
    write_phantoms(root / "data", women=24, seed=5, long_side=256)
    command(root, "dvc", "add", "-q", "data")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", "a small project")


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all tests of a session; tests that change it must say so."""
    root = tmp_path_factory.mktemp("small") / "project"
    make_project(root)
    return root
