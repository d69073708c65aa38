"""Checks of a data folder before it is versioned: those of preprocess, and more."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from mammo.base.errors import UserError
from mammo.base.progress import track
from mammo.base.settings import Preprocess
from mammo.data.reading import check_table
from mammo.data.tables import BREAST_BOXES, LESIONS, TRAIN
from mammo.dicom.header import GREYS, Description
from mammo.intake.examine import (
    Examination,
    examine,
    examine_all,
    find_doubtful_patients,
    find_files_without_row,
    reject_copies,
)


@dataclass(frozen=True)
class Remark:
    """One kind of fault or remark that a data manager should know."""

    what: str
    where: tuple[str, ...]  # lines of a table, images as patient/image, or files
    mend: bool  # whether it must be mended; else it is a remark


@dataclass(frozen=True)
class Checked:
    """The result of the check of a data folder."""

    rows: int  # of train.csv that are in order themselves
    read: int  # images
    patients: int  # with an image that was read
    findings: tuple[Remark, ...]  # what must be mended first, each part by frequency

    @property
    def in_order(self) -> bool:
        """Whether there is nothing to mend."""
        return not any(finding.mend for finding in self.findings)


def check_data(data: Path, settings: Preprocess, workers: int) -> Checked:
    """Check the tables and read every image, with `workers` processes.

    Raises:
        UserError: there is no train.csv, or it is no table, or has no rows.
    """
    rows, faults = check_table(data / "train.csv", TRAIN)
    if rows.empty and not faults:
        raise UserError(f"{data / 'train.csv'}: there are no images in the table")
    findings = [*_group(((f"train.csv: {f.text}", _line(f.line)) for f in faults), mend=True)]
    for schema in (BREAST_BOXES, LESIONS):
        findings += _check_boxes(data / str(schema.name), schema, rows)
    # Without these columns nobody knows which files are meant; without others they can be read.
    named = {"patient_id", "image_id"} <= set(rows.columns)
    if not named:
        findings += _findings(
            "not looked at: train.csv does not name them", ["all images"], mend=True
        )
    records = rows.reindex(columns=list(TRAIN.columns)).to_dict("records") if named else []
    found = examine_all(partial(_examine, settings=settings, data=data), records, workers)
    outcomes = reject_copies(records, track(found, "reading", len(records)))
    looked_at = list(zip(records, outcomes, strict=True))
    rejects = ((outcome.reason, _name(row)) for row, outcome in looked_at if not outcome.facts)
    findings += _group(rejects, mend=True)
    # A row at fault above names its file all the same.
    if not faults:
        extra = [path.relative_to(data).as_posix() for path in find_files_without_row(data, rows)]
        findings += _findings("a file that no row of train.csv names", extra, mend=True)
    accepted = [(_name(row), outcome) for row, outcome in looked_at if outcome.facts]
    others = [image for image, outcome in accepted if outcome.view_differs]
    findings += _findings("its header names another view than train.csv", others, mend=False)
    for what, is_so in NOTES.items():
        images = [
            image
            for image, outcome in accepted
            if outcome.description is not None and is_so(outcome.description)
        ]
        findings += _findings(what, images, mend=False)
    for doubt in find_doubtful_patients(records, outcomes):
        findings += _findings(doubt.sentence, list(doubt.patients), mend=False)
    read = [row for row, outcome in looked_at if outcome.facts]
    findings.sort(key=lambda finding: (not finding.mend, -len(finding.where)))
    patients = len({row["patient_id"] for row in read})
    return Checked(len(rows), len(read), patients, tuple(findings))


def _ignores(what: str, description: Description) -> bool:
    return what in description.ignored


NOTES: dict[str, Callable[[Description], bool]] = {
    "a secondary capture, such as a scanned film": lambda description: (
        description.secondary_capture
    ),
    "a 2D image that was calculated from a tomosynthesis": lambda description: (
        description.generated_2d
    ),
    "its header says that text is burnt into the pixels: they may name the patient": (
        lambda image: image.burned_in is True
    ),
    "its header does not say whether text is burnt into the pixels: look at a few": (
        lambda image: image.burned_in is None
    ),
    **{
        f"its header's {what} makes no sense beside its pixels, and is not used": (
            partial(_ignores, what)
        )
        for what in GREYS
    },
}


def _examine(row: dict[Hashable, Any], settings: Preprocess, data: Path) -> Examination:
    return examine(row, settings, data)[0]


def _check_boxes(path: Path, schema: pa.DataFrameSchema, rows: pd.DataFrame) -> list[Remark]:
    """Find what is wrong with a table that a collection need not have."""
    if not path.exists():
        return []
    try:
        table, faults = check_table(path, schema)
    except UserError as error:
        return [Remark(str(error), (path.name,), mend=True)]
    both = "image_id" in table and "image_id" in rows
    unknown = sorted(set(table["image_id"]) - set(rows["image_id"])) if both else []
    return [
        *_group(((f"{path.name}: {f.text}", _line(f.line)) for f in faults), mend=True),
        *_findings(f"{path.name} has a box of an image that train.csv lacks", unknown, mend=False),
    ]


def _line(number: int | None) -> str:
    return "the header" if number is None else f"line {number}"


def _name(row: dict[Hashable, Any]) -> str:
    return f"{row['patient_id']}/{row['image_id']}"


def _findings(what: str, where: list[str], mend: bool) -> list[Remark]:
    return [Remark(what, tuple(where), mend)] if where else []


def _group(found: Iterable[tuple[str, str]], mend: bool) -> list[Remark]:
    """Things of one kind together, in the order of the first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for what, where in found:
        groups[what].append(where)
    return [Remark(what, tuple(positions), mend) for what, positions in groups.items()]
