"""Write an exam's results as DICOM files: a report, and a picture of each suspicious view."""

from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Literal

from mammo.base.atomic_files import fresh_folder, write_bytes
from mammo.base.errors import UserError
from mammo.dicom_results.cad_report import build_cad_report
from mammo.dicom_results.capture import SERIES_NUMBERS, build_capture
from mammo.dicom_results.objects import Moment, find_moment, finish
from mammo.dicom_results.source import Exam, read_exam
from mammo.dicom_results.suspicion import list_positive
from mammo.serving.finding import ExamFinding, OperatingPoint

Kind = Literal["cad", "1500"]
"""The report: a Mammography CAD SR (TID 4000), or a Comprehensive SR (TID 1500)."""


def write_results(
    finding: ExamFinding,
    sources: Mapping[int, Path | bytes],
    folder: Path,
    kind: Kind = "cad",
    made: datetime | None = None,
) -> Path:
    """Write the results of an exam into a folder of its own.

    The folder appears whole and takes the place of an earlier one for the same exam. Its files
    belong to the study of the source images. The same exam, model and `made` give the same bytes.

    Args:
        finding: of the exam; its model has an operating point.
        sources: the file of each image, or its content, by `ImageFinding.number`.
        folder: where the exam's folder goes; its name is the exam's key.
        kind: of the report.
        made: when the results were made, in the clinic's time; without it, the study's own date.

    Returns:
        The exam's folder.

    Raises:
        UserError: the model has no operating point; or a source cannot be read, or lacks a UID that
            a report needs. Nothing is written then.
    """
    point = finding.operating_point
    if point is None:
        raise UserError(
            f"exam {finding.key}: the model has no operating point, so that a report could not say "
            "whether there is a finding: take a version that was registered with one"
        )
    exam = read_exam(finding, sources)
    moment = find_moment(exam, made)
    target = folder / finding.key
    with fresh_folder(target) as partial:
        for name, content in _make(exam, point, kind, moment):
            write_bytes(partial / name, content)
    return target


def _make(exam: Exam, point: OperatingPoint, kind: Kind, moment: Moment) -> list[tuple[str, bytes]]:
    """The files, by name."""
    if kind == "cad":
        files = [("mammography-cad-sr.dcm", finish(build_cad_report(exam, point, moment)))]
    else:
        # highdicom takes two seconds to import.
        from mammo.dicom_results.measurement_report import build_measurement_report

        files = [("measurement-report-sr.dcm", finish(build_measurement_report(exam, moment)))]
    numbers = {side: count(1) for side in SERIES_NUMBERS}
    for film in [film for films in list_positive(exam) for film in films]:
        image = film.finding
        number = next(numbers[image.laterality])
        name = "-".join(filter(None, ("capture", image.laterality, image.view, f"{number}")))
        capture = build_capture(exam, film, point, moment, number)
        files.append((f"{name}.dcm", finish(capture)))
    return files
