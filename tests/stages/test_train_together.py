"""Two processes train one classifier: the same bytes again after one of them died."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mammo.base.atomic_files import write_json
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Classifier, Params
from mammo.classifier_training import fit as fitting
from mammo.classifier_training.examples import read_examples
from mammo.classifier_training.fit import fit
from mammo.learning.parallel import Part
from stages import train_classifier
from tests.imports import ROOT
from tests.support.contents import contents
from tests.support.learnable import tiny_params, write_outputs
from tests.support.learning import tiny
from tests.support.stage_runs import BEST, train
from tests.support.together import run_in_processes

# 11 pictures, so the last batch has three: one process learns from two of them, the other from one.
PARAMS = tiny_params(
    epochs=2, balance="upsample", balance_factor=1.75, batch_size=4, average=0.5, processes=2
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "outputs"
    write_outputs(folder)
    write_json(folder / "tune_classifier" / "best_params.json", BEST)
    (folder / "best_params.json").symlink_to("tune_classifier/best_params.json")
    (folder.parent / "params.yaml").write_text(yaml.safe_dump(PARAMS.model_dump(mode="json")))
    return folder


@pytest.fixture(scope="module")
def unbroken(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return train_together(outputs, tmp_path_factory.mktemp("unbroken"))


def train_together(outputs: Path, folder: Path, params: Params = PARAMS) -> dict[str, bytes]:
    """Train in two processes, each with a folder of its own; what the first has written."""
    assert run_in_processes(2, train_part, params, outputs, folder) == [0, 0]
    assert contents(folder / "1") == {}
    return contents(folder / "0")


def train_part(params: Params, outputs: Path, folder: Path, part: Part) -> None:
    train(params, outputs, folder / str(part.index), folder / "checkpoints", part)


def lose_one(params: Params, outputs: Path, folder: Path, part: Part) -> None:
    """Train, until the second process dies in the second epoch."""
    usual = fitting.compute_rate_factor

    def rate_at(step: int, steps: int) -> float:
        if part.index == 1 and step == 4:
            os.kill(os.getpid(), 9)
        return usual(step, steps)

    fitting.compute_rate_factor = rate_at
    train_part(params, outputs, folder, part)


def test_the_first_process_alone_writes(unbroken: dict[str, bytes]) -> None:
    assert set(unbroken) == {
        "weights.safetensors",
        "architecture.json",
        "history.csv",
        "metrics.json",
    }


def test_after_one_was_lost_the_stage_goes_on_under_torchrun_to_the_same_bytes(
    outputs: Path, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    kept = tmp_path / "checkpoints"
    first, second = run_in_processes(2, lose_one, PARAMS, outputs, tmp_path)
    assert second == -9
    assert first not in (0, None)
    assert contents(tmp_path / "0") == {}
    assert len(list(kept.iterdir())) == 1
    (tmp_path / "kept").mkdir()
    kept.rename(tmp_path / "kept" / "train_classifier")
    done = subprocess.run(
        [sys.executable, "-m", "stages.train_classifier"],
        cwd=outputs.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MAMMOFLOW_DEVICE": "cpu",
            "MAMMOFLOW_CHECKPOINTS": str(tmp_path / "kept"),
            "MLFLOW_RUN_ID": "",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("going on after epoch 1") == 1
    assert contents(outputs / "train_classifier") == unbroken
    assert list((tmp_path / "kept").iterdir()) == []


def fit_together(settings: Classifier, outputs: Path, folder: Path, part: Part) -> None:
    pin(0, 1)
    tables = outputs / "preprocess" / "manifest.csv", outputs / "split" / "split.csv"
    sets = read_examples(settings, *tables, outputs / "crop_rois")
    history = pd.DataFrame(fit(settings, *sets, seed=1, part=part).history)
    history.to_csv(folder / f"{part.index}.csv", index=False)


def test_it_learns_what_one_process_learns_and_all_know_the_scores(
    outputs: Path, tmp_path: Path
) -> None:
    # Without dropout, which each process draws for itself. Of nine pictures the last one is alone
    # in its batch: the second process has nothing to learn from there.
    change = {"dropout": 0.0, "balance_factor": 1.25, "batch_size": 8, "epochs": 1}
    settings = tiny(**{**PARAMS.classifier.model_dump(), "processes": 2, **change})
    assert run_in_processes(2, fit_together, settings, outputs, tmp_path) == [0, 0]
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    fit_together(settings, outputs, tmp_path, Part())
    alone = pd.read_csv(tmp_path / "0.csv")
    both = pd.read_csv(tmp_path / "1.csv")
    pd.testing.assert_frame_equal(alone, both, rtol=1e-3)
    assert math.isfinite(both["train_loss"].iloc[-1])


def test_a_batch_norm_that_learns_is_refused(outputs: Path) -> None:
    settings = tiny(freeze_batch_norm=False, batch_size=8, processes=2)
    tables = outputs / "preprocess" / "manifest.csv", outputs / "split" / "split.csv"
    sets = read_examples(settings, *tables, outputs / "crop_rois")
    with pytest.raises(UserError, match="a batch norm of efficientnet_lite0 learns"):
        fit(settings, *sets, seed=1, part=Part(0, 2))


def test_too_few_gpus_are_told_before_anything_is_written(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outputs.parent)
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cuda")
    with pytest.raises(UserError, match="names one GPU for all"):
        train_classifier.main()
    assert not (outputs / ".train_classifier.partial").exists()
