"""What the re-made model and the recorded one wrote is compared: files as evaluate leaves them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.audit.effect import compare_remade
from flows.pipeline.lock_and_cache import Cache
from mammo.base.atomic_files import write_csv, write_json
from mammo.base.settings import load_params
from mammo.evaluation.metrics import measure
from tests.imports import ROOT

SETTINGS = load_params(ROOT / "params.yaml").audit
NAMES = ("breasts.csv", "metrics.json")


def breasts(seed: int, women: int = 60) -> pd.DataFrame:
    """Of half as many women each of validation and test; every third has cancer on the left."""
    generator = np.random.default_rng(1)
    target = np.array([[int(woman % 3 == 0), 0] for woman in range(women)]).ravel()
    seen = generator.normal(size=2 * women) + 4 * target
    logit = seen + np.random.default_rng(seed).normal(size=2 * women, scale=0.2) - 2
    number = np.repeat(np.arange(women), 2)
    return pd.DataFrame(
        {
            "patient_id": [f"{woman:04d}" for woman in number],
            "laterality": ["L", "R"] * women,
            "split": np.where(number < women / 2, "validation", "test"),
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
        }
    )


def written(folder: Path, table: pd.DataFrame, **scores: float) -> Path:
    """As the stage evaluate leaves them; `scores` are forged."""
    test = table[table["split"] == "test"].sort_values("probability", ascending=False)
    found = measure(
        test["target"].to_numpy(), test["probability"].to_numpy(), np.ones(len(test)), 0.5, 2.0
    )
    breast = {name: {"value": value} for name, value in {**found, **scores}.items()}
    out = folder / "outputs" / "evaluate"
    write_csv(out / "breasts.csv", table)
    metrics = {"test": {"breast": breast}, "threshold": {"breast": 0.4}}
    write_json(out / "metrics.json", metrics)
    return folder


def cached(folder: Path, cache: Path) -> Mapping[str, str]:
    """Put what is written into a cache; paths and hashes."""
    outs = {}
    for name in NAMES:
        content = (folder / "outputs/evaluate" / name).read_bytes()
        md5 = hashlib.md5(content).hexdigest()
        (cache / md5[:2]).mkdir(parents=True, exist_ok=True)
        (cache / md5[:2] / md5[2:]).write_bytes(content)
        outs[f"outputs/evaluate/{name}"] = md5
    return outs


def test_the_models_of_two_seeds_are_equivalent(tmp_path: Path) -> None:
    outs = cached(written(tmp_path / "then", breasts(1)), tmp_path / "cache")
    now = written(tmp_path / "now", breasts(2))
    found, points, findings = compare_remade(now, outs, Cache(tmp_path / "cache"), SETTINGS)
    assert found is not None
    assert points is not None
    assert found.outcome == "equivalent", found
    assert findings == []
    assert (found.women, found.breasts, found.positives) == (30, 60, 10)
    assert sum(points.target) == 10
    assert points.then != points.now
    assert points.threshold_then == 0.4


@pytest.mark.parametrize("change", ["label", "woman", "split"])
def test_other_labels_or_women_are_named(tmp_path: Path, change: str) -> None:
    table = breasts(1)
    outs = cached(written(tmp_path / "then", table), tmp_path / "cache")
    if change == "label":
        table.loc[118, "target"] = 1
    elif change == "woman":
        table = table.iloc[:-2]
    else:
        table.loc[0:1, "split"] = "test"
    now = written(tmp_path / "now", table)
    found, _, (finding,) = compare_remade(now, outs, Cache(tmp_path / "cache"), SETTINGS)
    assert found is None
    assert finding.kind == "wrong"
    assert (
        finding.sentence
        == {
            "label": "1 of the test breasts have another label: 0059 L",
            "woman": "2 of the test breasts are not in the re-made predictions: 0059 L, 0059 R",
            "split": "2 of the test breasts are new in the re-made predictions: 0000 L, 0000 R",
        }[change]
    )


def test_a_recorded_score_that_the_predictions_do_not_give_is_wrong(tmp_path: Path) -> None:
    outs = cached(written(tmp_path / "then", breasts(1), auroc=0.5), tmp_path / "cache")
    now = written(tmp_path / "now", breasts(2))
    _, _, (finding,) = compare_remade(now, outs, Cache(tmp_path / "cache"), SETTINGS)
    assert finding.kind == "wrong"
    assert finding.sentence.startswith(
        "test.breast.auroc of outputs/evaluate/metrics.json is 0.5, but outputs/evaluate/breasts.cs"
    )


def test_a_table_that_is_none_is_no_crash(tmp_path: Path) -> None:
    outs = cached(written(tmp_path / "then", breasts(1)), tmp_path / "cache")
    now = written(tmp_path / "now", breasts(2))
    (now / "outputs/evaluate/breasts.csv").write_text("a,b\n1,2\n")
    _, _, (finding,) = compare_remade(now, outs, Cache(tmp_path / "cache"), SETTINGS)
    assert finding.sentence.startswith("the models cannot be compared: ")
    (now / "outputs/evaluate/metrics.json").write_text(json.dumps({}))
    _, _, (finding,) = compare_remade(now, outs, Cache(tmp_path / "cache"), SETTINGS)
    assert finding.kind == "wrong"
