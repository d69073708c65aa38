"""A stage says where it computes; which stages want a card is what dvc.yaml says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from flows.pipeline.graph import read_pipeline
from mammo.base.settings import load_params
from stages.device import announce_device, wants_gpu
from tests.imports import ROOT


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_the_stages_that_want_a_card_are_those_that_dvc_yaml_sends_to_the_pool_gpu(
    pool: str, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    text = (ROOT / "params.yaml").read_text()
    assert "prediction_pool: cpu" in text
    (tmp_path / "params.yaml").write_text(
        text.replace("prediction_pool: cpu", f"prediction_pool: {pool}")
    )
    params = load_params(tmp_path / "params.yaml")
    pools = {stage.name: stage.meta.pool for stage in read_pipeline(tmp_path)}
    assert set(pools.values()) == {"cpu", "gpu"}
    for stage, wanted in pools.items():
        assert wants_gpu(stage, params) == (wanted == "gpu")
    assert wants_gpu("evaluate", params) == (pool == "gpu")
    assert wants_gpu("train_classifier", params)


def test_a_stage_of_a_pretraining_wants_a_card_if_it_is_sent_to_the_pool_gpu() -> None:
    stages = yaml.safe_load((ROOT / "pretraining/dvc.yaml").read_text())["stages"]
    wanted = {name: stage["do"]["meta"]["pool"] == "gpu" for name, stage in stages.items()}
    assert set(wanted.values()) == {True, False}
    assert {name: wants_gpu(name) for name in stages} == wanted


def test_a_stage_that_wants_a_card_and_finds_none_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = load_params()
    announce_device("train_classifier", params)
    said = capsys.readouterr().out
    assert said.startswith("train_classifier: torch sees no GPU, which this stage wants")
    announce_device("evaluate", params)
    assert capsys.readouterr().out == ""
    announce_device("evaluate", params.model_copy(update={"prediction_pool": "gpu"}))
    assert "evaluate: torch sees no GPU" in capsys.readouterr().out
    announce_device("pretrain")
    assert "pretrain: torch sees no GPU" in capsys.readouterr().out
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cpu")  # as it was told
    announce_device("train_classifier", params)
    assert capsys.readouterr().out == ""
