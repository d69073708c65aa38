"""The stage writes the same bytes twice, watched or not, and checks the weights first."""

from pathlib import Path

import pandas as pd
import pytest

from mammo.errors import UserError
from mammo.files import read_json
from mammo.params import Params
from mammo.reproducibility import pin
from stages import tune_classifier
from tests.stages.learnable import contents, tiny_params, write_outputs


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_outputs(folder)
    return folder


def run(params: Params, outputs: Path, out: Path, storage: str = "") -> dict[str, bytes]:
    out.mkdir()
    pin(0, params.threads)
    tune_classifier.run(
        params,
        outputs / "preprocess" / "manifest.csv",
        outputs / "split" / "split.csv",
        outputs / "crop_rois",
        out,
        storage,
    )
    return contents(out)


def test_tuned_twice_it_is_the_same_to_the_byte(outputs: Path, tmp_path: Path) -> None:
    params = tiny_params()
    first = run(params, outputs, tmp_path / "one")
    assert first == run(params, outputs, tmp_path / "two")
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
    first = run(params, outputs, tmp_path / "one", address)
    assert read_json(tmp_path / "one" / "best_params.json")["search"] == "shared by several workers"
    # A worker that comes late has nothing to do, and writes the same.
    assert run(params, outputs, tmp_path / "two", address) == first
    # Another search in the same database is another study.
    run(tiny_params(trials=1), outputs, tmp_path / "other", address)
    assert len(pd.read_csv(tmp_path / "other" / "trials.csv")) == 1


def test_missing_weights_are_told_before_anything_is_read(tmp_path: Path) -> None:
    params = tiny_params(weights="nowhere.safetensors")
    with pytest.raises(UserError, match=r"nowhere\.safetensors"):
        run(params, tmp_path / "no outputs", tmp_path / "out")
