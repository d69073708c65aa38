"""A small data set."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.dicoms import half_breast, jpeg_2000, jpeg_lossless, plain, rle

WRITERS = (plain, jpeg_2000, jpeg_lossless, rle)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three women, four images each, in four encodings; rows in no order; boxes of one image."""
    folder = tmp_path / "data"
    rows = []
    for number in range(12):
        patient, image = str(30 - number // 4), f"{(7 * number) % 12:04d}"
        side, view = "LR"[number % 2], ("CC", "MLO")[number // 2 % 2]
        pixels = half_breast(200, 160 + number)
        if side == "R":
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        path = folder / "train_images" / patient / f"{image}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WRITERS[number % 4](pixels, ImageLaterality=side, ViewPosition=view))
        rows.append(
            {
                "site_id": 1, "patient_id": patient, "image_id": image, "laterality": side,
                "view": view, "age": 61 if number else "", "cancer": number % 2, "biopsy": 0,
                "invasive": 0, "BIRADS": "", "implant": 0, "density": "B", "machine_id": 29,
                "difficult_negative_case": 0,
            }
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    (folder / "breast_boxes.csv").write_text("image_id,x1,y1,x2,y2\n0000,0,40,96,160\n")
    return folder
