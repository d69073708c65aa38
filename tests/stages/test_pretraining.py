"""Patches and a backbone that learns from them: to the same bytes, and the classifier takes it."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mammo.base.atomic_files import read_json
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Split
from mammo.classifier.network import build_classifier
from mammo.patches.settings import FILE, Pretraining, load_pretraining
from stages import patches, pretrain
from tests.imports import ROOT
from tests.support.contents import contents
from tests.support.crops import tiny_pretraining, write_crops
from tests.support.killed import run_killed
from tests.support.learning import tiny

SERVED = Split(validation=0.2, test=0.2, salt="served")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage patches writes."""
    source = write_crops(tmp_path_factory.mktemp("crops"))
    out = tmp_path_factory.mktemp("patches")
    patches.run(tiny_pretraining(), SERVED, source, out)
    return out


def run(
    params: Pretraining, cut: Path, out: Path, checkpoints: Path | None = None
) -> dict[str, bytes]:
    """Run the stage pretrain; what it wrote."""
    (out / "outputs").mkdir(parents=True, exist_ok=True)
    pin(0, params.threads)
    pretrain.run(params, cut, out / "outputs", out / "weights", checkpoints)
    return contents(out)


@pytest.fixture(scope="module")
def made(cut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained")
    run(tiny_pretraining(), cut, out)
    return out


def test_patches_are_counted_by_split(cut: Path) -> None:
    metrics = read_json(cut / "metrics.json")
    assert metrics["train"] == {"women": 4, "patches": 8, "cancer": 4, "healthy": 0}
    assert metrics["validation"]["women"] == metrics["test"]["women"] == 2
    assert len(list((cut / "images").rglob("*.png"))) == 16


def test_patches_twice_are_the_same_to_the_byte(cut: Path, tmp_path: Path) -> None:
    source = write_crops(tmp_path / "crops")
    (tmp_path / "out").mkdir()
    patches.run(tiny_pretraining(), SERVED, source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(cut)


def test_pretrained_twice_it_is_the_same_to_the_byte(cut: Path, made: Path, tmp_path: Path) -> None:
    again = run(tiny_pretraining(), cut, tmp_path)
    assert again == contents(made)
    assert set(again) == {
        "outputs/history.csv",
        "outputs/metrics.json",
        "weights/backbone.json",
        "weights/backbone.safetensors",
    }


def test_metrics_have_intervals_over_women_for_validation_and_test(made: Path) -> None:
    metrics = read_json(made / "outputs" / "metrics.json")
    for split in ("validation", "test"):
        scores = metrics[split]["patch"]
        assert (scores["cases"], scores["positives"], scores["women"]) == (4, 2, 2)
        assert scores["auroc"]["low"] <= scores["auroc"]["value"] <= scores["auroc"]["high"]


def test_the_card_says_what_the_weights_are_and_what_they_learnt_from(
    made: Path, cut: Path
) -> None:
    card = read_json(made / "weights" / "backbone.json")
    content = (made / "weights" / "backbone.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert (card["backbone"], card["first_weights"]) == ("efficientnet_lite0", "imagenet")
    assert card["data"]["licence"] == "not stated"
    assert {"split": "train", "kind": "crop", "cancer": 1, "patches": 4, "women": 4} in card[
        "data"
    ]["patches"]
    assert card["metrics"] == read_json(made / "outputs" / "metrics.json")


def test_the_classifier_starts_from_it(made: Path) -> None:
    file = made / "weights" / "backbone.safetensors"
    learnt = load_file(file)
    model = build_classifier(tiny(weights=str(file)))
    fresh = build_classifier(tiny()).backbone.state_dict()
    found = model.backbone.state_dict()
    assert all(torch.equal(found[name], learnt[f"backbone.{name}"]) for name in found)
    assert not all(torch.equal(found[name], fresh[name]) for name in found)


KILLED = """
import os
import sys
from pathlib import Path
from mammo.classifier_training import fit
from tests.stages.test_pretraining import run, tiny_pretraining

def rate_at(step, steps):
    if step == 3:
        os.kill(os.getpid(), 9)
    return usual(step, steps)

usual, fit.compute_rate_factor = fit.compute_rate_factor, rate_at
cut, out, checkpoints = map(Path, sys.argv[1:])
run(tiny_pretraining(), cut, out, checkpoints)
"""


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    cut: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = tmp_path / "checkpoints"
    run_killed(KILLED, cut, tmp_path / "killed", checkpoints)
    assert contents(tmp_path / "killed") == {}
    assert run(tiny_pretraining(), cut, tmp_path / "resumed", checkpoints) == contents(made)
    assert "going on after epoch 1" in capsys.readouterr().out


def test_patches_of_one_class_are_refused(tmp_path: Path) -> None:
    source = write_crops(tmp_path / "crops")
    table = pd.read_csv(source / "crops.csv")
    table[table["cancer"] == 0].to_csv(source / "crops.csv", index=False)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"train needs patches with and without cancer"):
        patches.run(tiny_pretraining(), SERVED, source, tmp_path / "out")


@pytest.mark.parametrize(
    ("section", "change", "complaint"),
    [
        ("pretrain", {"weights": "weights/x.safetensors"}, "starts from imagenet or none"),
        ("pretrain", {"processes": 2}, "runs in one process"),
        ("patches", {"source": "data"}, "patches.same_women must be true"),
        (None, {"made": ["spine"]}, "made.0 = 'spine'"),
        (None, {"shape": 3}, "shape is not a known setting"),
    ],
)
def test_settings_that_cannot_be_are_named(
    tmp_path: Path, section: str | None, change: dict[str, object], complaint: str
) -> None:
    settings = yaml.safe_load((ROOT / FILE).read_text())
    (settings if section is None else settings[section]).update(change)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=complaint):
        load_pretraining(path)


def test_nothing_is_made_unless_somebody_asks_for_it() -> None:
    assert load_pretraining(ROOT / FILE).made == []
