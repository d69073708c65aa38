"""Crops by class, and settings of a pretraining that learns from them in seconds."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mammo.patches.settings import FILE, Pretraining, load_pretraining
from mammo.patches.tables import crop_file
from tests.imports import ROOT
from tests.support.learning import tiny


def tiny_pretraining(**changes: object) -> Pretraining:
    """The project's own settings, with a network that trains in seconds."""
    settings = load_pretraining(ROOT / FILE).model_dump()
    settings |= {"threads": 1, "seed": 4}
    size = {"image_height": 32, "image_width": 32, "average": 0.5, "batch_size": 4}
    settings["pretrain"] = tiny(**size | changes).model_dump()
    settings["evaluate"]["bootstrap"] = 100
    return Pretraining.model_validate(settings)


def write_crops(folder: Path) -> Path:
    """Crops of eight women, one of each class a woman: a cancer has a bright spot."""
    rows = []
    for number in range(8):
        for cancer in (0, 1):
            woman, name = f"w{number}", f"w{number}-{cancer}"
            picture = np.random.default_rng([number, cancer]).integers(40, 90, (32, 32), np.uint8)
            if cancer:
                cv2.circle(picture, (12 + number, 16), 6, 255, -1)
            path = folder / crop_file(woman, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
            split = ("train", "train", "validation", "test")[number % 4]
            rows.append({"patient_id": woman, "image_id": name, "cancer": cancer, "split": split})
    pd.DataFrame(rows).to_csv(folder / "crops.csv", index=False)
    return folder
