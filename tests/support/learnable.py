"""What the early stages write, for the tests of split and of the training stages."""

from pathlib import Path

import pandas as pd

from mammo.base.settings import Params, load_params
from tests.support.learning import tiny, write_breasts


def tiny_params(trials: int = 2, epochs: int = 1, **classifier: object) -> Params:
    """The project's own settings, with a classifier that trains in seconds."""
    params = load_params()
    tune = params.tune.model_copy(update={"trials": trials, "epochs": epochs})
    return params.model_copy(
        update={"threads": 1, "tune": tune, "classifier": tiny(epochs=epochs, **classifier)}
    )


def write_outputs(outputs: Path, women: int = 4) -> None:
    """Write outputs/preprocess, split and crop_rois: every woman's left breast has a cancer."""
    table = write_breasts(outputs / "crop_rois" / "images", women)
    manifest = table[["patient_id", "image_id", "laterality", "view", "path"]].assign(
        age=60.0,
        cancer=table["target"],
        biopsy=table["target"],
        invasive=0,
        difficult_negative_case=0,
        implant=0,
        density="B",
        machine_id="1",
        stored_width=40,
        stored_height=60,
        width=40,
        height=60,
        flipped=0,
        transfer_syntax="1.2.840.10008.1.2.1",
        photometric="MONOCHROME2",
    )
    rois = table[["patient_id", "image_id", "path"]].assign(
        x1=0, y1=0, x2=40, y2=60, found_by="mask", confidence=""
    )
    split = table[["patient_id", "split"]].drop_duplicates()
    write(manifest, outputs / "preprocess" / "manifest.csv")
    write(split, outputs / "split" / "split.csv")
    write(rois, outputs / "crop_rois" / "rois.csv")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
