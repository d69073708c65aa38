"""The tables that pass between stages, as pandera schemas: `mammo.data.reading` reads them.

Ids are text, whatever they look like: "0012" and "12" are two patients.
"""

import re

import pandas as pd
import pandera.pandas as pa

IMAGES = "train_images"
"""The folder of a data set that has PATIENT/IMAGE.dcm."""


def image_file(patient_id: str, image_id: str) -> str:
    """Where an image is in the folder of its data set."""
    return f"{IMAGES}/{patient_id}/{image_id}.dcm"


def image_files(rows: pd.DataFrame) -> list[str]:
    """Where the images of the rows of a train.csv are, in order."""
    return [image_file(*ids) for ids in zip(rows["patient_id"], rows["image_id"], strict=True)]


Flag = pa.Check.isin([0, 1], error="must be 0 or 1")

MAX_ID_BYTES = 128
"""Of an id, in UTF-8: a file system takes 255 for a name, and ours have something added."""

_ID = re.compile(r"\w([\w.\- ]*[\w.\-])?")


def _is_id(value: object) -> bool:
    """It becomes a file's name, so no path, no leading dot; nor spaces that nobody sees."""
    text = str(value)
    return bool(_ID.fullmatch(text)) and len(text.encode()) <= MAX_ID_BYTES


_IS_ID = [
    pa.Check(
        _is_id,
        element_wise=True,
        error="is no id: it needs letters, digits or . - _ with at most spaces between them",
    ),
    # pandas makes 10006 so where another row has no value; no folder is called that.
    pa.Check(
        lambda value: not re.fullmatch(r"\d+\.0+", str(value)),
        element_wise=True,
        error="is an id that was taken for a number: write it without the point and the zeros",
    ),
]


def _one_of(*allowed: object) -> pa.Check:
    return pa.Check.isin(allowed, error=f"must be one of {', '.join(map(str, allowed))}")


def _id(unique: bool = False) -> pa.Column:
    return pa.Column(str, _IS_ID, unique=unique, metadata={"kind": "id"})


def _flag() -> pa.Column:
    return pa.Column("int64", Flag, metadata={"kind": "flag"})


_IMAGE = {
    "patient_id": _id(),
    "image_id": _id(unique=True),
    "laterality": pa.Column(str, _one_of("L", "R")),
    "view": pa.Column(str),
}
_LABELS = {
    "cancer": _flag(),
    "biopsy": _flag(),
    "invasive": _flag(),
    "difficult_negative_case": _flag(),
}
_FINITE = pa.Check(lambda values: values.abs() < float("inf"), error="must be a finite number")
_AGE = pa.Column(float, pa.Check.in_range(0, 120, error="must be 0 to 120 years"), nullable=True)
_BOX = {name: pa.Column(float, _FINITE) for name in ("x1", "y1", "x2", "y2")}


def _less(low: str, high: str) -> pa.Check:
    """Of each row; where one of the columns is missing, that alone is the fault."""
    return pa.Check(
        lambda table: table[low] < table[high] if {low, high} <= set(table) else True,
        error=f"{low} must be less than {high}",
    )


_BOX_IS_NOT_EMPTY = [_less("x1", "x2"), _less("y1", "y2")]

TRAIN = pa.DataFrameSchema(
    {
        "site_id": pa.Column(str, nullable=True),
        **_IMAGE,
        "age": _AGE,
        **_LABELS,
        "BIRADS": pa.Column(float, nullable=True),
        "implant": _flag(),
        "density": pa.Column(str, nullable=True),
        "machine_id": pa.Column(str, nullable=True),
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
"""data/lesions.csv: in pixels of the stored image. Judges explanations; patches are cut by it."""

MANIFEST = pa.DataFrameSchema(
    {
        **_IMAGE,
        "age": _AGE,
        **_LABELS,
        "implant": _flag(),
        "density": pa.Column(str, nullable=True),
        "machine_id": pa.Column(str, nullable=True),
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
        "split": pa.Column(str, _one_of("train", "validation", "test")),
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
        "found_by": pa.Column(str, _one_of("detector", "mask", "whole")),
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
