"""The command line as a whole."""

import tomllib

from typer.testing import CliRunner

from flows.cli.app import app
from tests.imports import ROOT


def test_it_says_which_version_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"mammoflow {project['version']}\n")
