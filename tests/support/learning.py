"""A problem that a tiny network learns in seconds: a breast with a bright spot is positive.

And a predictor that has learnt nothing, for what is not about learning.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import yaml

from mammo.base.determinism import pin
from mammo.base.settings import Classifier, load_params
from mammo.classifier.network import build_classifier, save_classifier
from mammo.detector.detector import build_detector, save_detector
from tests.imports import ROOT

TINY = {
    "image_height": 48,
    "image_width": 32,
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "freeze_batch_norm": True,
    "trainable_layers": "all",
    "head_width": 32,
    "dropout": 0.1,
    "learning_rate": 0.001,
    "backbone_rate": 0.3,
    "batch_size": 8,
    "epochs": 2,
    "patience": 2,
    "select_by": "auroc",
    "average": 0.0,
    "balance": "none",
}


def tiny(**changes: object) -> Classifier:
    """Settings of a classifier that trains in seconds."""
    return Classifier.model_validate(load_params().classifier.model_dump() | TINY | changes)


def write_breasts(folder: Path, women: int, splits: dict[str, str] | None = None) -> pd.DataFrame:
    """Write two views of both breasts of each woman, the left one positive, and their table.

    Returns:
        As `inputs.label_rois`: half of the women train, the other half validation, or as `splits`
        says.
    """
    rows = []
    for woman in range(women):
        patient = f"w{woman}"
        for number, (side, view) in enumerate([(s, v) for s in "LR" for v in ("CC", "MLO")]):
            rng = np.random.default_rng([woman, number])
            picture = rng.integers(40, 90, (60, 40)).astype(np.uint8)
            if side == "L":
                x, y = rng.integers(8, 30, 2)
                cv2.circle(picture, (int(x), int(y) + 10), 6, 255, -1)
            path = f"{patient}/{woman}{number}.png"
            (folder / patient).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), picture)
            rows.append(
                {
                    "patient_id": patient,
                    "image_id": f"{woman}{number}",
                    "laterality": side,
                    "view": view,
                    "split": (splits or {}).get(patient, "train" if woman % 2 else "validation"),
                    "target": int(side == "L"),
                    "path": path,
                }
            )
    return pd.DataFrame(rows)


def write_untrained_predictor(folder: Path) -> Path:
    """Write a small predictor with random weights, as a registered model holds it; its folder."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["threads"] = 1
    params["preprocess"]["long_side"] = 128
    params["classifier"].update(image_height=64, image_width=48, weights="none")
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    pin(3, 1)
    for part in ("detector", "classifier"):
        (folder / part).mkdir()
    save_detector(build_detector("yolo11n.yaml", 64), folder / "detector")
    settings = load_params(folder / "params.yaml").classifier
    model = build_classifier(settings)
    with torch.no_grad():  # a head that has learnt nothing says the same of every image
        for weights in model.head.parameters():
            weights.normal_(std=0.05).abs_()
    save_classifier(model, settings, folder / "classifier")
    return folder


def write_predictor_with(folder: Path, backbone: str) -> Path:
    """A predictor with random weights and another backbone."""
    write_untrained_predictor(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["classifier"]["backbone"] = backbone
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_params(folder / "params.yaml").classifier
    pin(3, 1)
    model = build_classifier(settings)
    with torch.no_grad():
        for weights in model.head.parameters():
            weights.normal_(std=0.05)
    save_classifier(model, settings, folder / "classifier")
    return folder
