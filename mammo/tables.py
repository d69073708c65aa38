"""The tables that pass between stages, as pandera schemas, and how they are read.

Ids are text, whatever they look like: "0012" and "12" are two patients.
"""

from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from mammo.errors import UserError

Flag = pa.Check.isin([0, 1])
_ID = r"^[\w][\w.\- ]*$"  # becomes a file name: no path separator, no leading dot


def _id() -> pa.Column:
    return pa.Column(str, pa.Check.str_matches(_ID))


def _flag() -> pa.Column:
    return pa.Column("int64", Flag)


_IMAGE = {
    "patient_id": _id(),
    "image_id": pa.Column(str, pa.Check.str_matches(_ID), unique=True),
    "laterality": pa.Column(str, pa.Check.isin(["L", "R"])),
    "view": pa.Column(str),
}
_LABELS = {
    "cancer": _flag(),
    "biopsy": _flag(),
    "invasive": _flag(),
    "difficult_negative_case": _flag(),
}
_BOX = {name: pa.Column(float) for name in ("x1", "y1", "x2", "y2")}
_BOX_IS_NOT_EMPTY = [
    pa.Check(lambda table: table["x1"] < table["x2"], error="x1 must be less than x2"),
    pa.Check(lambda table: table["y1"] < table["y2"], error="y1 must be less than y2"),
]

TRAIN = pa.DataFrameSchema(
    {
        "site_id": pa.Column(str),
        **_IMAGE,
        "age": pa.Column(float, nullable=True),
        **_LABELS,
        "BIRADS": pa.Column(float, nullable=True),
        "implant": _flag(),
        "density": pa.Column(str, nullable=True),
        "machine_id": pa.Column(str),
    },
    coerce=True,
    name="train.csv",
)
"""data/train.csv: one row an image, the columns of RSNA 2023."""

BREAST_BOXES = pa.DataFrameSchema(
    {"image_id": pa.Column(str, unique=True), **_BOX},
    checks=_BOX_IS_NOT_EMPTY,
    coerce=True,
    name="breast_boxes.csv",
)
"""data/breast_boxes.csv: in pixels of the stored image."""

LESIONS = pa.DataFrameSchema(
    {"image_id": pa.Column(str), **_BOX, "kind": pa.Column(str)},
    checks=_BOX_IS_NOT_EMPTY,
    coerce=True,
    name="lesions.csv",
)
"""data/lesions.csv: in pixels of the stored image. Judges explanations, never trains."""

MANIFEST = pa.DataFrameSchema(
    {
        **_IMAGE,
        "age": pa.Column(float, nullable=True),
        **_LABELS,
        "implant": _flag(),
        "density": pa.Column(str, nullable=True),
        "machine_id": pa.Column(str),
        "path": pa.Column(str),  # of the image, relative to outputs/preprocess/images
        "stored_width": pa.Column(int),
        "stored_height": pa.Column(int),
        "width": pa.Column(int),
        "height": pa.Column(int),
        "flipped": _flag(),  # mirrored, so that the breast hangs from the left edge
        "transfer_syntax": pa.Column(str),
        "photometric": pa.Column(str),
    },
    coerce=True,
    name="manifest.csv",
)
"""outputs/preprocess/manifest.csv: one row an image that could be read."""

REJECTS = pa.DataFrameSchema(
    {"patient_id": pa.Column(str), "image_id": pa.Column(str), "reason": pa.Column(str)},
    coerce=True,
    name="rejects.csv",
)
"""outputs/preprocess/rejects.csv: one row an image that could not."""

SPLIT = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(str, unique=True),
        "split": pa.Column(str, pa.Check.isin(["train", "validation", "test"])),
    },
    coerce=True,
    name="split.csv",
)
"""outputs/split/split.csv: one row a woman."""

ROIS = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(str),
        "image_id": pa.Column(str, unique=True),
        "path": pa.Column(str),  # relative to outputs/crop_rois/images
        **_BOX,  # in pixels of the preprocessed image
        "found_by": pa.Column(str, pa.Check.isin(["detector", "mask", "whole"])),
        "confidence": pa.Column(float, nullable=True),  # of the detector
    },
    coerce=True,
    name="rois.csv",
)
"""outputs/crop_rois/rois.csv: one row an image."""

PREDICTIONS = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(str),
        "image_id": pa.Column(str, unique=True),
        "laterality": pa.Column(str),
        "view": pa.Column(str),
        "split": pa.Column(str),
        "target": _flag(),
        "probability": pa.Column(float, pa.Check.in_range(0, 1)),
    },
    coerce=True,
    name="predictions.csv",
)
"""outputs/evaluate/predictions.csv: one row an image of validation and test."""

BREASTS = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(str),
        "laterality": pa.Column(str),
        "split": pa.Column(str),
        "target": _flag(),
        "probability": pa.Column(float, pa.Check.in_range(0, 1)),
    },
    coerce=True,
    name="breasts.csv",
)
"""outputs/evaluate/breasts.csv: one row a breast of validation and test."""


def read_table(path: Path, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Read a CSV and check it.

    Raises:
        UserError: naming the file and every fault, with row numbers as an editor counts them (the
            header is line 1).
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: cannot be read as a CSV table: {error}") from None
    for name, column in schema.columns.items():
        if name in table and column.nullable:
            table[name] = table[name].replace("", None)
    try:
        return schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        faults = [_describe(case) for case in error.failure_cases.to_dict("records")]
        shown = "; ".join(dict.fromkeys(faults[:20]))
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise UserError(f"{path}: {shown}{more}") from None


def _describe(case: dict[str, object]) -> str:
    """One pandera failure as a phrase."""
    check, value = case["check"], case["failure_case"]
    if check == "column_in_dataframe":
        return f"the column {value} is missing"
    index = case["index"]
    where = f"line {int(index) + 2}, " if isinstance(index, int | float) and index == index else ""
    return f"{where}{case['column']}: {value!r} fails {check}"
