"""The sample that a bare clone makes is the one that data.dvc names."""

import subprocess
from pathlib import Path

import pytest

from mammo.datasets.phantom import write_phantoms
from tests.flows.conftest import command
from tests.imports import ROOT


@pytest.mark.timeout(900)
def test_generating_the_sample_gives_exactly_the_committed_hash(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command(tmp_path, "dvc", "init", "-q")
    write_phantoms(tmp_path / "data")
    command(tmp_path, "dvc", "add", "-q", "data")
    assert (tmp_path / "data.dvc").read_text() == (ROOT / "data.dvc").read_text()
