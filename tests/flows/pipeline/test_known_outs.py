"""What is read by its path is what the pipeline makes."""

from pathlib import Path

import pytest

from flows.pipeline import known_outs
from flows.pipeline.graph import Stage, read_pipeline
from tests.imports import ROOT


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read_pipeline(ROOT)


@pytest.mark.parametrize("name", [name for name in vars(known_outs) if name.isupper()])
def test_an_out_that_is_read_by_its_path_is_declared(name: str, stages: list[Stage]) -> None:
    assert Path(getattr(known_outs, name)) in {out for stage in stages for out in stage.outs}
