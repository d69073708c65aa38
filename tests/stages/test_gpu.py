"""On a GPU: every stage of a small pipeline, twice, in processes of their own: the same bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.imports import ROOT
from tests.support.cards import needs_a_card
from tests.support.contents import contents
from tests.support.tiny_pipeline import STAGES, prepare

pytestmark = needs_a_card


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder)
    return folder


def run(data: Path, folder: Path, precision: str) -> str:
    """Run all stages on a copy of the data; what they said."""
    shutil.copytree(data, folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["classifier"]["precision"], params["prediction_pool"] = precision, "gpu"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    kept = {name: x for name, x in os.environ.items() if name != "MAMMOFLOW_DEVICE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.tiny_pipeline", str(folder)],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "MAMMOFLOW_STORE": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_stage_gives_the_same_bytes_twice(precision: str, data: Path, tmp_path: Path) -> None:
    said = run(data, tmp_path / "one", precision)
    run(data, tmp_path / "two", precision)
    for stage in STAGES:
        if stage not in ("preprocess", "split", "report"):
            assert f"{stage}: on cuda:0" in said
    one, two = (contents(tmp_path / name / "outputs") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
