"""The stage evaluate: its files agree with each other and with scikit-learn."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mammo.base.errors import UserError
from mammo.base.settings import Params
from mammo.data import reading, tables
from stages.evaluate import run
from tests.support.tiny_outputs import tiny_params, write_tiny_outputs


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny_params()


@pytest.fixture(scope="module")
def outputs(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_tiny_outputs(params, folder)
    evaluate(params, folder, folder / "evaluate")
    return folder


@pytest.fixture
def changed(outputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(outputs, tmp_path / "changed"))


def evaluate(params: Params, outputs: Path, out: Path) -> None:
    run(
        params,
        outputs / "preprocess/manifest.csv",
        outputs / "split/split.csv",
        outputs / "crop_rois",
        outputs / "train_classifier",
        out,
    )


def test_same_inputs_same_bytes(params: Params, outputs: Path, tmp_path: Path) -> None:
    evaluate(params, outputs, tmp_path / "again")
    names = sorted(path.name for path in (outputs / "evaluate").iterdir())
    assert names == [
        "breasts.csv",
        "confusion.csv",
        "metrics.json",
        "precision_recall.csv",
        "predictions.csv",
        "roc.csv",
    ]
    for name in names:
        first, again = outputs / "evaluate" / name, tmp_path / "again" / name
        assert first.read_bytes() == again.read_bytes(), name


def test_predictions_are_of_all_validation_and_test_images(outputs: Path) -> None:
    predictions = reading.read_table(outputs / "evaluate/predictions.csv", tables.PREDICTIONS)
    manifest = reading.read_table(outputs / "preprocess/manifest.csv", tables.MANIFEST)
    expected = manifest[manifest["patient_id"] >= "008"]
    assert predictions["image_id"].tolist() == sorted(expected["image_id"])
    assert set(predictions["split"]) == {"validation", "test"}
    assert predictions["target"].sum() == expected["cancer"].sum() == 8
    assert predictions["probability"].nunique() > 10


def test_breasts_are_the_highest_of_their_views(outputs: Path) -> None:
    predictions = reading.read_table(outputs / "evaluate/predictions.csv", tables.PREDICTIONS)
    breasts = reading.read_table(outputs / "evaluate/breasts.csv", tables.BREASTS)
    highest = predictions.groupby(["patient_id", "laterality"])["probability"].max()
    assert breasts["probability"].tolist() == highest.tolist()
    assert len(breasts) == 32


def test_metrics_can_be_computed_again_from_the_tables(outputs: Path) -> None:
    metrics = json.loads((outputs / "evaluate/metrics.json").read_text())
    levels = {
        "breast": reading.read_table(outputs / "evaluate/breasts.csv", tables.BREASTS),
        "image": reading.read_table(outputs / "evaluate/predictions.csv", tables.PREDICTIONS),
    }
    for split in ("test", "validation"):
        for level, table in levels.items():
            cases = table[table["split"] == split]
            called = cases["probability"] >= metrics["threshold"][level]
            scores = metrics[split][level]
            target = cases["target"]
            auroc = roc_auc_score(target, cases["probability"])
            assert scores["auroc"]["value"] == pytest.approx(auroc, rel=1e-12)
            assert scores["sensitivity"]["value"] == called[target == 1].mean()
            assert scores["auroc"]["low"] <= scores["auroc"]["value"] <= scores["auroc"]["high"]
            assert (scores["cases"], scores["positives"]) == (len(cases), target.sum())
            assert scores["women"] == 8
    ours = metrics["test"]["breast"]["auroc"]["value"]
    assert metrics["test"]["origin"]["auroc"] == pytest.approx(ours, rel=1e-12)
    assert list(metrics) == ["test", "validation", "threshold"]


def test_plots_are_of_the_test_breasts(outputs: Path) -> None:
    folder = outputs / "evaluate"
    metrics = json.loads((folder / "metrics.json").read_text())["test"]["breast"]
    roc = pd.read_csv(folder / "roc.csv")
    assert list(roc.columns) == ["fpr", "tpr", "threshold"]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(metrics["auroc"]["value"])
    curve = pd.read_csv(folder / "precision_recall.csv")
    assert list(curve.columns) == ["recall", "precision", "threshold"]
    steps = -(np.diff(curve["recall"]) * curve["precision"][:-1]).sum()
    assert steps == pytest.approx(metrics["average_precision"]["value"])
    confusion = pd.read_csv(folder / "confusion.csv")
    assert len(confusion) == metrics["cases"]
    found = (confusion["predicted"] == "positive")[confusion["actual"] == "positive"]
    assert found.mean() == pytest.approx(metrics["sensitivity"]["value"])


def test_the_threshold_is_chosen_without_the_test_women(
    params: Params, changed: Path, outputs: Path
) -> None:
    manifest = pd.read_csv(changed / "preprocess/manifest.csv", dtype=str)
    test_women = manifest["patient_id"] >= "016"
    manifest.loc[test_women, "cancer"] = (manifest.loc[test_women, "laterality"] == "R").astype(str)
    manifest["cancer"] = manifest["cancer"].replace({"True": "1", "False": "0"})
    manifest.to_csv(changed / "preprocess/manifest.csv", index=False)
    evaluate(params, changed, changed / "again")
    before = json.loads((outputs / "evaluate/metrics.json").read_text())
    after = json.loads((changed / "again/metrics.json").read_text())
    assert after["threshold"] == before["threshold"]
    assert after["validation"] == before["validation"]
    assert after["test"] != before["test"]


def test_an_image_without_roi_is_named(params: Params, changed: Path) -> None:
    rois = pd.read_csv(changed / "crop_rois/rois.csv", dtype=str)
    rois[rois["image_id"] != "020LCC"].to_csv(changed / "crop_rois/rois.csv", index=False)
    with pytest.raises(UserError, match=r"rois\.csv: 1 images .* 020LCC.*crop_rois"):
        evaluate(params, changed, changed / "again")


def test_a_split_of_one_class_cannot_be_scored(params: Params, changed: Path) -> None:
    manifest = pd.read_csv(changed / "preprocess/manifest.csv", dtype=str)
    manifest.loc[manifest["patient_id"] >= "016", "cancer"] = "0"
    manifest.to_csv(changed / "preprocess/manifest.csv", index=False)
    with pytest.raises(UserError, match=r"manifest\.csv: the test split has no breast with cancer"):
        evaluate(params, changed, changed / "again")
