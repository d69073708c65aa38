"""The stage trains with what tuning found, and the same bytes come out twice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mammo.base.atomic_files import read_json, write_json
from mammo.base.errors import UserError
from mammo.classifier.network import load_classifier
from mammo.classifier.predict import predict
from stages import train_classifier
from tests.support.contents import contents
from tests.support.killed import run_killed
from tests.support.learnable import tiny_params, write_outputs
from tests.support.stage_runs import BEST, train


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_outputs(folder)
    write_json(folder / "best_params.json", BEST)
    return folder


def test_trained_twice_it_is_the_same_to_the_byte(outputs: Path, tmp_path: Path) -> None:
    params = tiny_params(epochs=2)
    first = train(params, outputs, tmp_path / "one")
    assert first == train(params, outputs, tmp_path / "two")
    assert set(first) == {
        "weights.safetensors",
        "architecture.json",
        "history.csv",
        "metrics.json",
    }
    model, settings = load_classifier(tmp_path / "one")
    assert (settings.head_width, settings.dropout, settings.learning_rate) == (6, 0.2, 0.002)
    rois = sorted((outputs / "crop_rois" / "images").rglob("*.png"))
    probabilities = predict(model, rois, settings)
    assert np.ptp(probabilities) > 0

    history = pd.read_csv(tmp_path / "one" / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    metrics = read_json(tmp_path / "one" / "metrics.json")
    best = history.loc[history["epoch"] == metrics["best_epoch"]].iloc[0]
    assert metrics["validation_auroc"] == pytest.approx(best["validation_auroc"])
    assert metrics["train_images"] == metrics["validation_images"] == 8
    assert metrics["train_positive_images"] == 4
    assert metrics["parameters_trained"] == metrics["parameters"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "run the stage tune_classifier first"),
        ("{}", "does not hold valid"),
        ("[]", "does not hold valid"),
        ('{"head_width": 6, "dropout": 2, "learning_rate": 0.1}', "does not hold valid"),
    ],
)
def test_best_params_that_are_missing_or_wrong_are_refused(
    tmp_path: Path, content: str | None, fault: str
) -> None:
    path = tmp_path / "best_params.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=fault) as error:
        train_classifier.apply_best_params(tiny_params().classifier, path)
    assert str(path) in str(error.value)


def test_missing_weights_are_told_before_anything_is_read(tmp_path: Path) -> None:
    params = tiny_params(weights="nowhere.safetensors")
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        train(params, tmp_path / "no outputs", tmp_path / "out")


KILLED = """
import os
import sys
from pathlib import Path
from mammo.classifier_training import fit
from tests.stages.test_train_classifier import LONGER
from tests.support.stage_runs import train

def rate_at(step, steps):
    if step == 5:
        os.kill(os.getpid(), 9)
    return usual(step, steps)

usual, fit.compute_rate_factor = fit.compute_rate_factor, rate_at
outputs, out, checkpoints = map(Path, sys.argv[1:])
train(LONGER, outputs, out, checkpoints)
"""
LONGER = tiny_params(
    epochs=3, balance="upsample", balance_factor=1.5, patience=4, batch_size=4, average=0.5
)


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = tmp_path / "checkpoints"
    run_killed(KILLED, outputs, tmp_path / "killed", checkpoints)
    assert contents(tmp_path / "killed") == {}
    [file] = checkpoints.iterdir()
    undisturbed = train(LONGER, outputs, tmp_path / "undisturbed")
    capsys.readouterr()
    assert train(LONGER, outputs, tmp_path / "resumed", checkpoints) == undisturbed
    # Ten pictures, three steps an epoch: it died in the second.
    assert "going on after epoch 1" in capsys.readouterr().out
    # One that had ended, but was killed before its outs were safe, trains no more.
    assert train(LONGER, outputs, tmp_path / "again", checkpoints) == undisturbed
    assert "going on after epoch 3" in capsys.readouterr().out
    # Another training leaves it alone, and damage means to start again.
    other = LONGER.model_copy(update={"seed": 1})
    other_bytes = train(other, outputs, tmp_path / "other", checkpoints)
    assert "going on" not in capsys.readouterr().out
    assert other_bytes != undisturbed
    file.write_bytes(file.read_bytes()[:1000])
    assert train(LONGER, outputs, tmp_path / "damaged", checkpoints) == undisturbed
    assert "training starts from its beginning" in capsys.readouterr().out
