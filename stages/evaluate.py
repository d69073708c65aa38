"""Score the classifier on the validation and test women.

    python -m stages.evaluate

Thresholds are chosen on validation; the test women are only scored. metrics.json holds every score
with its interval per split and level, the origin's three figures computed its way, the thresholds
and the counts. The curves and the confusion table are of the test breasts.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.base.settings import Params, load_params
from mammo.classifier.network import load_classifier
from mammo.classifier.predict import predict
from mammo.data.reading import read_table
from mammo.data.splits import check, count, target_of
from mammo.data.tables import MANIFEST, ROIS, SPLIT
from mammo.evaluation.metrics import (
    choose_threshold,
    compute_origin_scores,
    evaluate,
    group_by_breast,
)
from stages.device import announce_device
from stages.runner import run_stage

MANIFEST_FILE = Path("outputs/preprocess/manifest.csv")
SPLIT_FILE = Path("outputs/split/split.csv")
CROPS_FOLDER = Path("outputs/crop_rois")
CLASSIFIER_FOLDER = Path("outputs/train_classifier")
OUT = Path("outputs/evaluate")

SCORED_SPLITS = ("test", "validation")  # the most important first


def run(
    params: Params, manifest: Path, split: Path, crops: Path, classifier: Path, out: Path
) -> None:
    """Predict, score, write.

    Raises:
        UserError: also if a split has no positive or no negative breast.
    """
    images = _read_images(params, manifest, split, crops)
    model, settings = load_classifier(classifier)
    say(f"evaluate: {len(images)} images of {images['patient_id'].nunique()} women")
    paths = [crops / "images" / path for path in images["path"]]
    images["probability"] = _round_as_written(predict(model, paths, settings))
    images = images.drop(columns="path")
    breasts = group_by_breast(images, params.evaluate.aggregate)
    levels = {"breast": breasts, "image": images}

    validation = {name: cases[cases["split"] == "validation"] for name, cases in levels.items()}
    thresholds = {
        name: choose_threshold(cases["target"], cases["probability"], params.evaluate.beta)
        for name, cases in validation.items()
    }
    metrics: dict[str, Any] = {
        name: _score(name, levels, thresholds, params) for name in SCORED_SPLITS
    }
    metrics["threshold"] = thresholds

    write_csv(out / "predictions.csv", images)
    write_csv(out / "breasts.csv", breasts)
    write_json(out / "metrics.json", metrics)
    _write_plots(breasts[breasts["split"] == "test"], thresholds["breast"], out)
    auroc = metrics["test"]["breast"]["auroc"]
    say(
        f"evaluate: test breasts, auROC {auroc['value']:.3f} "
        f"({auroc['low']:.3f} to {auroc['high']:.3f})"
    )


def _score(
    split: str, levels: dict[str, pd.DataFrame], thresholds: dict[str, float], params: Params
) -> dict[str, Any]:
    """The scores of one split, by level (breast, image), and the origin's three figures."""
    scores: dict[str, Any] = {}
    for level, cases in levels.items():
        say(f"evaluate: {split}, by {level}: {params.evaluate.bootstrap} resamples")
        part = cases[cases["split"] == split]
        seed = derive_seed(params.seed, f"evaluate/{split}/{level}")
        scores[level] = evaluate(part, thresholds[level], params.evaluate, seed).to_json()
    images = levels["image"]
    scores["origin"] = compute_origin_scores(images[images["split"] == split])
    return scores


def _read_images(params: Params, manifest: Path, split: Path, crops: Path) -> pd.DataFrame:
    """Read the images of the validation and test women, sorted, with target and path of the ROI."""
    table = read_table(manifest, MANIFEST).drop(columns="path")
    women = read_table(split, SPLIT)
    target = params.evaluate.target
    check(count(table, women, target), target, manifest)
    table["target"] = target_of(table, target)
    table = table.merge(women, on="patient_id", validate="many_to_one")
    rois = read_table(crops / "rois.csv", ROIS)[["image_id", "path"]]
    table = table[table["split"].isin(SCORED_SPLITS)].merge(rois, on="image_id", how="left")
    missing = table.loc[table["path"].isna(), "image_id"]
    if len(missing):
        raise UserError(
            f"{crops / 'rois.csv'}: {len(missing)} images of {manifest} are missing, the first "
            f"is {missing.iloc[0]}; run the stage crop_rois again"
        )
    columns = ["patient_id", "image_id", "laterality", "view", "split", "target", "path"]
    return table[columns].sort_values(["patient_id", "image_id"], ignore_index=True)


def _round_as_written(probability: np.ndarray) -> np.ndarray:
    """Round probabilities as predictions.csv does, so that its readers compute the same scores."""
    return np.array([float(f"{value:.9g}") for value in probability])


def _write_plots(breasts: pd.DataFrame, threshold: float, out: Path) -> None:
    """roc.csv, precision_recall.csv and confusion.csv, as `dvc plots` draws them.

    The curves' end points belong to no probability: their threshold is empty.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve  # takes a second, with SciPy

    target, probability = breasts["target"], breasts["probability"]
    fpr, tpr, at = roc_curve(target, probability)
    roc = pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": np.where(np.isinf(at), np.nan, at)})
    write_csv(out / "roc.csv", roc)
    precision, recall, at = precision_recall_curve(target, probability, drop_intermediate=True)
    at = np.append(at, np.nan)
    curve = pd.DataFrame({"recall": recall, "precision": precision, "threshold": at})
    write_csv(out / "precision_recall.csv", curve)
    names = np.array(["negative", "positive"])
    called = (probability >= threshold).astype(int)
    confusion = pd.DataFrame({"actual": names[target], "predicted": names[called]})
    write_csv(out / "confusion.csv", confusion)


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    pin(derive_seed(params.seed, "evaluate"), params.threads)
    announce_device(OUT.name, params)
    with fresh_folder(OUT) as out:
        run(params, MANIFEST_FILE, SPLIT_FILE, CROPS_FOLDER, CLASSIFIER_FOLDER, out)


if __name__ == "__main__":
    run_stage(main)
