"""What preprocess and split write, for a few half-ellipses: the tests of the detector's stages."""

from pathlib import Path

import cv2
import pandas as pd

from mammo.base.atomic_files import write_csv
from mammo.data.tables import BREAST_BOXES, MANIFEST, SPLIT
from mammo.imaging.geometry import Placement
from tests.support.half_ellipses import half_ellipse


def write_preprocessed(folder: Path, women: int) -> None:
    """Write images, manifest.csv and breast_boxes.csv: one image a woman, ids 00, 01, ...

    Every other image was mirrored; the stored images are twice the size.
    """
    rows, boxes = [], []
    for woman in range(women):
        name = f"{woman:02d}"
        image, box = half_ellipse(woman)
        height, width = image.shape
        path = folder / "images" / name / f"{name}.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), image)
        placement = Placement(2 * width, 2 * height, width, height, flipped=woman % 2 == 1)
        stored = placement.to_stored(box)
        boxes.append((name, stored.x1, stored.y1, stored.x2, stored.y2))
        rows.append(
            {
                "patient_id": name,
                "image_id": name,
                "laterality": "L",
                "view": "CC",
                "age": 50,
                "cancer": 0,
                "biopsy": 0,
                "invasive": 0,
                "difficult_negative_case": 0,
                "implant": 0,
                "density": "B",
                "machine_id": "1",
                "path": f"{name}/{name}.png",
                "stored_width": placement.stored_width,
                "stored_height": placement.stored_height,
                "width": width,
                "height": height,
                "flipped": int(placement.flipped),
                "transfer_syntax": "1.2.840.10008.1.2.1",
                "photometric": "MONOCHROME2",
            }
        )
    write_csv(folder / "manifest.csv", MANIFEST.validate(pd.DataFrame(rows)))
    table = pd.DataFrame(boxes, columns=["image_id", "x1", "y1", "x2", "y2"])
    write_csv(folder / "breast_boxes.csv", BREAST_BOXES.validate(table))


def write_split(path: Path, splits: list[str]) -> None:
    """Write split.csv: the woman with id 00 is in the first of `splits`, and so on."""
    women = [f"{woman:02d}" for woman in range(len(splits))]
    write_csv(path, SPLIT.validate(pd.DataFrame({"patient_id": women, "split": splits})))
