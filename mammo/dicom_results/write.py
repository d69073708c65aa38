"""Write an exam's results as DICOM files: a report, and a picture of each suspicious view."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Literal

from mammo.base.atomic_files import fresh_folder, write_bytes
from mammo.base.errors import UserError
from mammo.dicom_results.cad_report import build_cad_report
from mammo.dicom_results.capture import SERIES_NUMBERS, build_capture
from mammo.dicom_results.objects import (
    Moment,
    WrittenReport,
    find_moment,
    finish,
    name_predecessors,
)
from mammo.dicom_results.source import Exam, UnreadMammogram, read_exam, read_unread_exam
from mammo.dicom_results.suspicion import list_positive
from mammo.serving.finding import ExamFinding, Model, OperatingPoint

Kind = Literal["cad", "1500"]
"""The report: a Mammography CAD SR (TID 4000), or a Comprehensive SR (TID 1500)."""

REPORTS: dict[Kind, str] = {"cad": "mammography-cad-sr.dcm", "1500": "measurement-report-sr.dcm"}
"""The name of the report's file."""

_CAPTURE = re.compile(r"capture-.*\.dcm")


def write_results(
    finding: ExamFinding,
    sources: Mapping[int, Path | bytes],
    folder: Path,
    kind: Kind = "cad",
    made: datetime | None = None,
    predecessors: Sequence[WrittenReport] = (),
    pictured: Collection[int] | None = None,
    unread: Sequence[UnreadMammogram] = (),
) -> Path:
    """Write the results of an exam into a folder of its own.

    The folder appears whole and takes the place of an earlier one for the same exam, but of none
    that holds anything else. Its files belong to the study of the source images. The same exam,
    model and `made` give the same bytes.

    Args:
        finding: of the exam; its model has an operating point.
        sources: the file of each image, or its content, by `ImageFinding.number`.
        folder: where the exam's folder goes; its name is the exam's key.
        kind: of the report.
        made: when the results were made, in the clinic's time; without it, the study's own date.
        predecessors: earlier reports on the exam, whose content this one holds as well.
        pictured: the numbers of the images that may have a picture; the others' sources may lack
            their pixels. Without it, all may.
        unread: images of the exam that could not be read, by `source.group_unread`: the report
            tells which.

    Returns:
        The exam's folder.

    Raises:
        UserError: the model has no operating point; or a source cannot be read, or lacks a UID that
            a report needs; or the folder holds other files. Nothing is written then.
    """
    if finding.operating_point is None:
        raise UserError(
            f"exam {finding.key}: the model has no operating point, so that a report could not say "
            "whether there is a finding: take a version that was registered with one"
        )
    exam = read_exam(finding, sources, unread)
    return _write(exam, folder / finding.key, kind, made, predecessors, pictured)


def write_unread(
    unread: Sequence[UnreadMammogram],
    model: Model,
    operating_point: OperatingPoint,
    aggregate: Literal["max", "mean"],
    folder: Path,
    kind: Kind = "cad",
    made: datetime | None = None,
    predecessors: Sequence[WrittenReport] = (),
) -> Path:
    """Write the report on an exam none of whose images could be read: that nothing is said of it.

    Args:
        unread: its images, one at least, by `source.group_unread`.
        model: that was to look at them.
        operating_point: the model's.
        aggregate: of a breast's images.
        folder: as for `write_results`, and so are `kind`, `made` and `predecessors`.
        kind: of the report.
        made: when the report was made.
        predecessors: earlier reports on the exam.

    Returns:
        The exam's folder.

    Raises:
        UserError: a file is not there any more, or the folder holds other files. Nothing is written
            then.
    """
    exam = read_unread_exam(unread, model, operating_point, aggregate)
    return _write(exam, folder / unread[0].exam, kind, made, predecessors, None)


def _write(
    exam: Exam,
    target: Path,
    kind: Kind,
    made: datetime | None,
    predecessors: Sequence[WrittenReport],
    pictured: Collection[int] | None,
) -> Path:
    _require_own(target)
    with fresh_folder(target) as partial:
        moment = find_moment(exam, made)
        for name, content in _make(exam, kind, moment, predecessors, pictured):
            write_bytes(partial / name, content)
    return target


def _require_own(folder: Path) -> None:
    """Make sure that a folder, if it is there, holds results alone, and may be replaced."""
    inside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in inside:
        if name not in REPORTS.values() and not _CAPTURE.fullmatch(name):
            raise UserError(
                f"{folder}: it holds {name}, which is no DICOM result and would be lost: name "
                f"another folder"
            )


def _make(
    exam: Exam,
    kind: Kind,
    moment: Moment,
    predecessors: Sequence[WrittenReport],
    pictured: Collection[int] | None,
) -> list[tuple[str, bytes]]:
    """The files, by name."""
    if kind == "cad":
        report = build_cad_report(exam, moment)
    else:
        # highdicom takes two seconds to import.
        from mammo.dicom_results.measurement_report import build_measurement_report

        report = build_measurement_report(exam, moment)
    name_predecessors(report, predecessors)
    files = [(REPORTS[kind], finish(report))]
    numbers = {side: count(1) for side in SERIES_NUMBERS}
    for film in [film for films in list_positive(exam) for film in films]:
        image = film.finding
        number = next(numbers[image.laterality])
        if pictured is not None and image.number not in pictured:
            continue
        name = "-".join(filter(None, ("capture", image.laterality, image.view, f"{number}")))
        capture = build_capture(exam, film, moment, number)
        files.append((f"{name}.dcm", finish(capture)))
    return files
