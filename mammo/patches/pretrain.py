"""A backbone that learns from patches which lesions are cancers; and what is known of it.

The training is the classifier's own (`mammo.classifier_training.fit`): every patch is a case of its
own, and the best epoch is chosen on the validation women.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammo.base.determinism import derive_seed
from mammo.base.settings import Classifier as Settings
from mammo.classifier.network import Classifier
from mammo.classifier.predict import predict
from mammo.classifier_training.examples import Examples, keep_pictures
from mammo.classifier_training.fit import Fit, fit
from mammo.data.reading import read_table
from mammo.evaluation.metrics import choose_threshold, evaluate
from mammo.learning.weights import add_prefix, dump_weights
from mammo.patches.settings import Pretraining
from mammo.patches.tables import HEALTHY, PATCHES, crop_file, read_source


@dataclass(frozen=True)
class Pretrained:
    """A training on patches, and its metrics: what `pretrain` says."""

    fit: Fit
    metrics: dict[str, Any]


def pretrain(
    params: Pretraining,
    patches: Path,
    checkpoints: Path | None = None,
) -> Pretrained:
    """Train on the patches of the train women, and score those of validation, and of test if any.

    Metrics are those of `mammo.evaluation.metrics.measure`, by split, with intervals over women:
    of all patches, and of those of lesions alone where there are healthy ones too. Those of
    validation are a little too good, since the epoch was chosen there.

    Args:
        params: all settings.
        patches: the folder of the stage patches.
        checkpoints: a folder to go on from, if training is interrupted.

    Raises:
        UserError: if the patches cannot be read, or a split has only one class; or as `fit`.
    """
    table = read_patches(patches)
    settings = params.pretrain
    sets = {
        split: _gather(table[table["split"] == split], patches, settings)
        for split in ("train", "validation")
    }
    seed = derive_seed(params.seed, "pretrain")
    found = fit(settings, sets["train"], sets["validation"], seed, checkpoints=checkpoints)
    metrics: dict[str, Any] = {
        "best_epoch": found.best_epoch,
        "epochs": len(found.history),
        "train_patches": len(sets["train"].targets),
        "train_positive_patches": int(sets["train"].targets.sum()),
    }
    scored = table[table["split"] != "train"].rename(columns={"cancer": "target"})
    paths = [patches / path for path in _paths(scored)]
    scored["probability"] = predict(found.model, paths, settings)
    validation = scored[scored["split"] == "validation"]
    threshold = choose_threshold(
        validation["target"], validation["probability"], params.evaluate.beta
    )
    for split in ("validation", "test"):
        part = scored[scored["split"] == split]
        levels = {"patch": part, "lesion": part[part["kind"] != HEALTHY]}
        if len(levels["lesion"]) == len(part):
            del levels["lesion"]
        scores = {
            level: evaluate(
                cases, threshold, params.evaluate, derive_seed(seed, f"{split}/{level}")
            ).to_json()
            for level, cases in levels.items()
            if cases["target"].nunique() == 2
        }
        metrics |= {split: scores} if scores else {}
    return Pretrained(found, {**metrics, "threshold": threshold})


def read_patches(folder: Path) -> pd.DataFrame:
    """The table of the stage patches, sorted by woman and patch.

    Raises:
        UserError: if it cannot be read.
    """
    table = read_table(folder / str(PATCHES.name), PATCHES)
    return table.sort_values(["patient_id", "image_id"], ignore_index=True)


def _gather(part: pd.DataFrame, folder: Path, settings: Settings) -> Examples:
    return Examples(
        pictures=keep_pictures([folder / path for path in _paths(part)], settings),
        targets=np.array(part["cancer"], np.int64),
        breasts=np.arange(len(part)),
    )


def _paths(table: pd.DataFrame) -> list[str]:
    return [crop_file(*ids) for ids in zip(table["patient_id"], table["image_id"], strict=True)]


def dump_backbone(model: Classifier) -> bytes:
    """The backbone's weights as a safetensors file, which `classifier.weights` takes.

    The names are those of a classifier's weights.
    """
    return dump_weights(add_prefix("backbone", model.backbone.state_dict()))


def write_card(
    params: Pretraining, patches: Path, weights: bytes, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a backbone, to lie beside it as JSON.

    Args:
        params: all settings.
        patches: the folder of the stage patches.
        weights: the file's content.
        metrics: of `pretrain`.

    Raises:
        UserError: if the patches cannot be read.
    """
    table = read_patches(patches)
    counts = table.groupby(["split", "kind", "cancer"])["patient_id"].agg(["size", "nunique"])
    return {
        "file": "backbone.safetensors",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "backbone": params.pretrain.backbone,
        "first_weights": params.pretrain.weights,
        "learnt": "of a patch of a mammogram, whether it shows a cancer",
        "data": {
            **read_source(patches),
            "sha256_of_patches": _hash_patches(table, patches),
            "patches": [
                {"split": split, "kind": kind, "cancer": int(cancer), "patches": n, "women": women}
                for (split, kind, cancer), n, women in zip(
                    counts.index, *counts.to_numpy().T.tolist(), strict=True
                )
            ],
        },
        "settings": {"seed": params.seed, **params.pretrain.model_dump(mode="json")},
        "metrics": dict(metrics),
    }


def _hash_patches(table: pd.DataFrame, folder: Path) -> str:
    """SHA-256 over the table and every picture, in its order."""
    digest = hashlib.sha256((folder / str(PATCHES.name)).read_bytes())
    for path in _paths(table):
        digest.update(hashlib.sha256((folder / path).read_bytes()).digest())
    return digest.hexdigest()
