"""Data sets in our layout with files of any bytes, for what does not read them."""

from pathlib import Path

import pandas as pd

from mammo.data.tables import TRAIN

COLUMNS = list(TRAIN.columns)


def write_set(folder: Path, images: dict[str, bytes], **changes: object) -> Path:
    """A data set; images are `<patient>/<image>` and the file's bytes."""
    rows = []
    for name, content in images.items():
        patient, image = name.split("/")
        path = folder / "train_images" / patient / f"{image}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        rows.append(
            dict.fromkeys(COLUMNS, "0")
            | {"patient_id": patient, "image_id": image, "laterality": "L", "view": "CC"}
            | {"age": "", "density": ""}
            | changes
        )
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return folder
