"""The stage writes the same bytes twice, watched or not, and checks the weights first."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.classifier_training.fit import Fit, fit
from mammo.tuning import cards
from tests.support.contents import contents
from tests.support.killed import run_killed
from tests.support.learnable import tiny_params, write_outputs
from tests.support.stage_runs import tune


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_outputs(folder)
    return folder


def test_tuned_twice_it_is_the_same_to_the_byte(outputs: Path, tmp_path: Path) -> None:
    params = tiny_params()
    first = tune(params, outputs, tmp_path / "one")
    assert first == tune(params, outputs, tmp_path / "two")
    assert set(first) == {"best_params.json", "trials.csv"}
    trials = pd.read_csv(tmp_path / "one" / "trials.csv")
    assert list(trials.columns) == [
        "number",
        "head_width",
        "dropout",
        "learning_rate",
        "value",
        "state",
        "epochs",
    ]
    assert list(trials["number"]) == [0, 1]
    best = read_json(tmp_path / "one" / "best_params.json")
    assert set(best) == {"head_width", "dropout", "learning_rate", "value"}
    assert best["value"] == pytest.approx(trials["value"].max())
    assert best["head_width"] in trials["head_width"].to_list()


def test_a_shared_search_says_so_and_is_found_again(outputs: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/study.db"
    params = tiny_params()
    first = tune(params, outputs, tmp_path / "one", address)
    assert read_json(tmp_path / "one" / "best_params.json")["search"] == "shared by several workers"
    # A worker that comes late has nothing to do, and writes the same.
    assert tune(params, outputs, tmp_path / "two", address) == first
    # Another search in the same database is another study.
    tune(tiny_params(trials=1), outputs, tmp_path / "other", address)
    assert len(pd.read_csv(tmp_path / "other" / "trials.csv")) == 1


def test_missing_weights_are_told_before_anything_is_read(tmp_path: Path) -> None:
    params = tiny_params(weights="nowhere.safetensors")
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        tune(params, tmp_path / "no outputs", tmp_path / "out")


KILLED = """
import os
import sys
from pathlib import Path
from mammo.tuning import cards
from tests.stages.test_tune_classifier import LONGER
from tests.support.stage_runs import tune

def fit(*arguments):
    trained.append(arguments)
    if len(trained) == 5:
        os.kill(os.getpid(), 9)
    return usual(*arguments)

trained = []
usual, cards.fit = cards.fit, fit
outputs, out, checkpoints = map(Path, sys.argv[1:])
tune(LONGER, outputs, out, checkpoints=checkpoints)
"""
LONGER = tiny_params(trials=6, epochs=2, select_by="loss")


def test_killed_in_the_middle_it_goes_on_after_its_last_trial_to_the_same_bytes(
    outputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    run_killed(KILLED, outputs, tmp_path / "killed", checkpoints)
    assert contents(tmp_path / "killed") == {}
    [file] = checkpoints.iterdir()
    undisturbed = tune(LONGER, outputs, tmp_path / "undisturbed")
    assert "pruned" in undisturbed["trials.csv"].decode()
    trained = []

    def counted(*arguments: Any) -> Fit:
        trained.append(arguments)
        return fit(*arguments)

    monkeypatch.setattr(cards, "fit", counted)
    capsys.readouterr()
    assert tune(LONGER, outputs, tmp_path / "resumed", "", checkpoints) == undisturbed
    assert "going on after trial 3" in capsys.readouterr().out
    assert len(trained) == 2
    # One that had ended, but was killed before its outs were safe, trains nothing.
    assert tune(LONGER, outputs, tmp_path / "again", "", checkpoints) == undisturbed
    assert len(trained) == 2
    # Damage means to start again.
    kept = file.read_bytes()
    for damage in (kept[:-100], b"{}", b'[{"state": "DONE"}]', b"[1]"):
        file.write_bytes(damage)
        trained.clear()
        out = tmp_path / str(len(damage))
        assert tune(LONGER, outputs, out, "", checkpoints) == undisturbed, damage
        assert len(trained) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"tune": LONGER.tune.model_copy(update={"epochs": 1, "trials": 1})},
        {"classifier": LONGER.classifier.model_copy(update={"batch_size": 4})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_search_takes_up_no_trial(
    outputs: Path, tmp_path: Path, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = LONGER.model_copy(update={"tune": LONGER.tune.model_copy(update={"trials": 1})})
    other = params.model_copy(update=changed)
    checkpoints = tmp_path / "checkpoints"
    tune(params, outputs, tmp_path / "one", "", checkpoints)
    resumed = tune(other, outputs, tmp_path / "other", "", checkpoints)
    assert resumed == tune(other, outputs, tmp_path / "undisturbed")
    assert len(list(checkpoints.iterdir())) == 2


def test_other_data_take_up_no_trial(tmp_path: Path) -> None:
    params, checkpoints = tiny_params(trials=1), tmp_path / "checkpoints"
    for women in (4, 5):
        write_outputs(tmp_path / str(women), women)
        tune(params, tmp_path / str(women), tmp_path / f"out{women}", "", checkpoints)
    assert len(list(checkpoints.iterdir())) == 2
