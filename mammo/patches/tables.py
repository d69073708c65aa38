"""The tables of patches, as pandera schemas, and where the pictures of their rows are."""

from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import SPLIT, TRAIN

_PATCH = {
    "patient_id": TRAIN.columns["patient_id"],
    "image_id": TRAIN.columns["image_id"],
    "cancer": TRAIN.columns["cancer"],
    "split": SPLIT.columns["split"],
}

CROPS = pa.DataFrameSchema(dict(_PATCH), coerce=True, name="crops.csv")
"""crops.csv of a folder of crops by class: one row a crop, each woman in one split."""

PATCHES = pa.DataFrameSchema({**_PATCH, "kind": pa.Column(str)}, coerce=True, name="patches.csv")
"""outputs/patches/patches.csv: one row a patch. Its kind is a lesion's, or healthy, or crop."""

HEALTHY = "healthy"
"""The kind of a patch that shows no lesion."""

SOURCE = "source.json"
"""The file of a collection that says what it is: name, licence, reference."""


def crop_file(patient_id: str, image_id: str) -> str:
    """Where a crop is in its folder, and a patch in outputs/patches."""
    return f"images/{patient_id}/{image_id}.png"


def read_crops(folder: Path) -> pd.DataFrame:
    """The table of a folder of crops by class, sorted by woman and crop.

    Raises:
        UserError: if it cannot be read, or has a woman in two splits.
    """
    path = folder / str(CROPS.name)
    table = read_table(path, CROPS).sort_values(["patient_id", "image_id"], ignore_index=True)
    splits = table.groupby("patient_id")["split"].nunique()
    if (torn := splits[splits > 1]).size:
        raise UserError(f"{path}: {torn.index[0]} is in {torn.iloc[0]} splits: put her into one")
    return table


def read_source(folder: Path) -> dict[str, str]:
    """What a collection says of itself: name, licence, reference; each may be "not stated".

    Raises:
        UserError: if source.json is there and says something else.
    """
    path = folder / SOURCE
    said: Any = {}
    if path.is_file():
        try:
            said = read_json(path)
        except ValueError as error:
            raise UserError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise UserError(f"{path}: it must give name, licence and reference, each as a text")
    return {name: said.get(name, "not stated") for name in ("name", "licence", "reference")}


def require_both_classes(table: pd.DataFrame, path: Path) -> None:
    """Make sure that a network can learn from the train women, and be chosen on validation.

    Raises:
        UserError: if one of them has no patch of a cancer, or nothing else.
    """
    for split in ("train", "validation"):
        part = table[table["split"] == split]
        if part["cancer"].nunique() < 2:
            raise UserError(
                f"{path}: {split} needs patches with and without cancer, but of its {len(part)}"
                f" {part['cancer'].sum()} have it: take another source, or change patches.kinds or"
                " patches.split of pretraining/params.yaml"
            )
