"""A tiny set of what the early stages write, for the tests of the late ones."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from mammo.base.determinism import pin
from mammo.base.settings import Params, load_params
from mammo.classifier.network import build_classifier, save_classifier
from mammo.data.tables import LESIONS

HEIGHT, WIDTH = 64, 40  # of an ROI, in pixels
MARGIN = 10  # the ROI begins so far right of and below the image's corner


def tiny_params() -> Params:
    """The project's own settings, for 64-pixel images; the head is never trained."""
    params = load_params()
    tiny = {"image_height": 64, "image_width": 48, "head_width": 4}
    return params.model_copy(
        update={
            "threads": 1,
            "classifier": params.classifier.model_copy(update=tiny),
            "evaluate": params.evaluate.model_copy(update={"bootstrap": 100}),
            "explain": params.explain.model_copy(update={"images": 2}),
        }
    )


def write_tiny_outputs(params: Params, outputs: Path) -> pd.DataFrame:
    """Write outputs/preprocess, split, crop_rois and train_classifier.

    24 women, a third in each split, with four views each; every fourth has cancer in the left
    breast, which is brighter. The stored image is twice the size of the image, and mirrored.

    Returns:
        The manifest, with the columns split and target.
    """
    manifest = _make_manifest()
    women = manifest["patient_id"].unique()
    splits = [("train", "validation", "test")[number // 8] for number in range(len(women))]
    split = pd.DataFrame({"patient_id": women, "split": splits})
    rois = manifest[["patient_id", "image_id", "path"]].assign(
        x1=MARGIN, y1=MARGIN, x2=MARGIN + WIDTH, y2=MARGIN + HEIGHT, found_by="detector"
    )
    rois["confidence"] = 0.9
    for name, table in (
        ("preprocess/manifest.csv", manifest),
        ("preprocess/lesions.csv", pd.DataFrame(columns=list(LESIONS.columns))),
        ("split/split.csv", split),
        ("crop_rois/rois.csv", rois),
    ):
        (outputs / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(outputs / name, index=False)
    _draw_rois(manifest, outputs / "crop_rois/images")
    _write_classifier(params, outputs / "train_classifier")
    manifest = manifest.merge(split, on="patient_id")
    return manifest.assign(target=manifest["cancer"])


def _make_manifest() -> pd.DataFrame:
    sick = {f"{woman:03d}L" for woman in range(0, 24, 4)}
    return pd.DataFrame(
        [
            {
                "patient_id": f"{woman:03d}",
                "image_id": f"{woman:03d}{laterality}{view}",
                "laterality": laterality,
                "view": view,
                "age": 60.0,
                **dict.fromkeys(
                    ("cancer", "biopsy", "invasive"), int(f"{woman:03d}{laterality}" in sick)
                ),
                **dict.fromkeys(("difficult_negative_case", "implant"), 0),
                "density": "B",
                "machine_id": "49",
                "path": f"{woman:03d}/{woman:03d}{laterality}{view}.png",
                "stored_width": 2 * (WIDTH + 2 * MARGIN),
                "stored_height": 2 * (HEIGHT + 2 * MARGIN),
                "width": WIDTH + 2 * MARGIN,
                "height": HEIGHT + 2 * MARGIN,
                "flipped": 1,
                "transfer_syntax": "1.2.840.10008.1.2.1",
                "photometric": "MONOCHROME2",
            }
            for woman in range(24)
            for laterality in "LR"
            for view in ("CC", "MLO")
        ]
    )


def _draw_rois(manifest: pd.DataFrame, folder: Path) -> None:
    """Noise, with a square that is brighter where there is cancer."""
    generator = np.random.default_rng(8)
    for name, cancer in zip(manifest["path"], manifest["cancer"], strict=True):
        path = folder / str(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 120, (HEIGHT, WIDTH), dtype=np.uint8)
        pixels[10:40, 5:25] += np.uint8(60 + 60 * int(cancer))
        cv2.imwrite(str(path), pixels)


def _write_classifier(params: Params, folder: Path) -> None:
    """A network that was not trained, and whose head takes whatever is seen for cancer."""
    pin(4, params.threads)
    folder.mkdir()
    network = build_classifier(params.classifier)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.abs_()  # so every image has heat
    save_classifier(network, params.classifier, folder)
