"""Cut the breast out of every preprocessed image.

    python -m stages.crop_rois

rois.csv says for each image which box was cut, who found it (the detector, the breast mask, or
nobody: the whole image) and how sure the detector was.
"""

from pathlib import Path

import cv2
import pandas as pd

from mammo.detector import load_detector
from mammo.files import fresh_folder, write_csv, write_json
from mammo.params import Params, load_params
from mammo.progress import track
from mammo.reading import read_gray
from mammo.reproducibility import pin, stage_seed
from mammo.roi import cut, find_roi
from mammo.tables import MANIFEST, ROIS, read_table
from stages.runner import run_stage

PREPROCESSED = Path("outputs/preprocess")
DETECTOR = Path("outputs/train_detector")
OUT = Path("outputs/crop_rois")


def run(params: Params, preprocessed: Path, detector: Path, out: Path) -> None:
    """Find, cut, write."""
    manifest = read_table(preprocessed / "manifest.csv", MANIFEST)
    network = load_detector(detector)
    rows = []
    for row in track(manifest.to_dict("records"), "crop_rois", len(manifest)):
        image = read_gray(preprocessed / "images" / row["path"])
        roi = find_roi(network, image, params.crop)
        target = out / "images" / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(target), cut(image, roi.box)):
            raise OSError(f"{target}: cannot be written")
        rows.append(
            {
                "patient_id": row["patient_id"],
                "image_id": row["image_id"],
                "path": row["path"],
                "x1": int(roi.box.x1),
                "y1": int(roi.box.y1),
                "x2": int(roi.box.x2),
                "y2": int(roi.box.y2),
                "found_by": roi.found_by,
                "confidence": roi.confidence,
            }
        )
    rois = pd.DataFrame(rows, columns=list(ROIS.columns))
    write_csv(out / "rois.csv", rois)
    counts = rois["found_by"].value_counts()
    confidences = rois["confidence"].dropna()
    write_json(
        out / "metrics.json",
        {
            "images": len(rois),
            "found_by": {name: int(counts.get(name, 0)) for name in ("detector", "mask", "whole")},
            "mean_confidence": float(confidences.mean()) if len(confidences) else None,
        },
    )


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    pin(stage_seed(params.seed, "crop_rois"), params.threads)
    with fresh_folder(OUT) as out:
        run(params, PREPROCESSED, DETECTOR, out)


if __name__ == "__main__":
    run_stage(main)
