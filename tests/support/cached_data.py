"""Data of made-up women in DVC's cache, for what reads nothing of them but the table."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml

from mammo.data.tables import TRAIN
from tests.support.tampering import put_into_cache


def table(women: int, sick: int = 3) -> str:
    """A train.csv of women with two breasts, the left one of every few with cancer."""
    rows = [
        {
            **dict.fromkeys(TRAIN.columns, 0),
            "patient_id": f"w{woman:03d}",
            "image_id": f"{woman}{side}",
            "laterality": side,
            "view": "CC",
            "age": 50,
            "cancer": int(woman % sick == 0 and side == "L"),
        }
        for woman in range(women)
        for side in "LR"
    ]
    return pd.DataFrame(rows).to_csv(index=False)


def put_data(root: Path, files: Mapping[str, str]) -> str:
    """Put a folder of data into DVC's cache; the text of the data.dvc that names it."""
    listed = [
        {"md5": put_into_cache(root, text.encode()), "relpath": name}
        for name, text in sorted(files.items())
    ]
    folder = put_into_cache(root, json.dumps(listed).encode(), ".dir")
    return yaml.safe_dump({"outs": [{"path": "data", "md5": folder, "size": 1}]})
