"""The answer to a complete study: what the model finds in it, and the reports on the findings."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pydicom

from flows.listening.journal import Journal
from flows.listening.record import FILE, SeenImage, StudyRecord, read_record, write_record
from flows.listening.spool import HEADERS, RESULTS, Spool, find_last_arrival, list_images
from mammo.base.errors import UserError
from mammo.dicom_results.objects import Report
from mammo.dicom_results.source import strip_pixels
from mammo.dicom_results.write import REPORTS, Kind, write_results
from mammo.serving.finding import (
    ExamFinding,
    ImageFinding,
    Model,
    OperatingPoint,
    group_exams,
)

if TYPE_CHECKING:  # it imports torch, and the node needs none to receive and to send
    from mammo.serving.exams import Unread


@dataclass(frozen=True)
class Reader:
    """A model that is asked."""

    examine: Callable[[Sequence[Path]], Iterable["ImageFinding | Unread"]]
    """What it finds in files, in order, with pictures of the heat."""
    model: Model
    operating_point: OperatingPoint
    aggregate: Literal["max", "mean"]


def answer(
    study: str,
    reader: Reader,
    kind: Kind,
    spool: Spool,
    journal: Journal,
    is_over: Callable[[], bool],
) -> None:
    """Look at a complete study, and put the reports on it where they are sent from.

    A report is on the whole exam: an image that was looked at before is in it again, with the
    finding of then, unless another model found it. Such a report names the earlier one.

    Args:
        study: its UID; it is in the state `predicting`.
        reader: the model.
        kind: of the reports.
        spool: that holds it.
        journal: gets a line for each step.
        is_over: whether the node is to end; the study is then left for its next start.
    """
    folder, earlier = spool.folder_of("predicting", study), spool.folder_of("answered", study)
    record = read_record(earlier / FILE)
    files = [file for file in list_images(folder) if not record.has_read(file.stem)]
    if not files:
        spool.drop(study)
        return
    examined = _examine(files, reader, record.last_number, is_over)
    if examined is None:
        return
    seen, reasons = examined
    images = {**record.images, **seen}
    reports = dict(record.reports)
    lines: list[dict[str, object]] = [
        {"step": "unread", "image": journal.name_image(uid), "reason": reason}
        for uid, reason in reasons.items()
    ]
    with spool.build_results() as built:
        (built / RESULTS).mkdir()
        headers = _keep_headers(built / HEADERS, earlier / HEADERS, files, seen)
        sources = headers | {file.stem: file for file in files}
        fresh = {one.finding.number for one in seen.values() if one.finding is not None}
        moment = datetime.fromtimestamp(find_last_arrival(folder))
        for exam in _group(images, fresh, reader):
            before = _find_predecessors(reports, exam)
            try:
                written = write_results(
                    exam, _find_sources(exam, sources), built / RESULTS, kind, moment, before, fresh
                )
            except UserError as error:
                lines.append({"step": "unreported", "exam": exam.key, "reason": str(error)})
                continue
            report = _refer_to(written / REPORTS[kind])
            reports[exam.key] = reader.model, report
            lines.append({"step": "predicted", **_describe(exam, report, before, journal)})
        write_record(built / FILE, StudyRecord(images, reports))
        spool.commit(study, built)
    for line in lines:
        journal.add(str(line.pop("step")), study=journal.name_study(study), **line)


def _examine(
    files: Sequence[Path], reader: Reader, last: int, is_over: Callable[[], bool]
) -> tuple[dict[str, SeenImage], dict[str, str]] | None:
    """What the model finds in files, numbered after `last`, and why others cannot be read.

    Returns:
        Both by SOPInstanceUID; None if the node is to end.
    """
    seen, reasons = {}, {}
    for number, (file, found) in enumerate(
        zip(files, reader.examine(files), strict=True), start=last + 1
    ):
        if is_over():
            return None
        if isinstance(found, ImageFinding):
            # Sentences name an image by its number: its path is made of UIDs.
            finding = replace(found, number=number, source=None)
            seen[file.stem] = SeenImage(reader.model, finding)
        else:
            seen[file.stem] = SeenImage(reader.model, None)
            reasons[file.stem] = found.reason
    return seen, reasons


def _find_predecessors(
    reports: Mapping[str, tuple[Model, Report]], exam: ExamFinding
) -> list[Report]:
    """The last report on an exam, unless it is another model's: the new one has its content."""
    last = reports.get(exam.key)
    return [last[1]] if last is not None and last[0] == exam.model else []


def _describe(
    exam: ExamFinding, report: Report, before: Sequence[Report], journal: Journal
) -> dict[str, object]:
    return {
        "exam": exam.key,
        "images": len(exam.images),
        "decision": exam.decision,
        "probability": round(exam.probability, 6),
        "version": exam.model.version,
        "snapshot": exam.model.snapshot,
        "report": journal.name_image(report.instance),
        "follows": journal.name_image(before[0].instance) if before else None,
    }


def _group(
    images: Mapping[str, SeenImage], fresh: Collection[int], reader: Reader
) -> list[ExamFinding]:
    """The exams that have a new image, each with all its images that this model has seen."""
    findings = [
        seen.finding
        for seen in images.values()
        if seen.finding is not None and seen.model == reader.model
    ]
    exams = group_exams(findings, reader.model, reader.operating_point, reader.aggregate)
    return [exam for exam in exams if any(image.number in fresh for image in exam.images)]


def _find_sources(exam: ExamFinding, sources: Mapping[str, Path]) -> dict[int, Path | bytes]:
    return {image.number: sources[str(image.identity.instance)] for image in exam.images}


def _keep_headers(
    target: Path, earlier: Path, files: Sequence[Path], seen: Mapping[str, SeenImage]
) -> dict[str, Path]:
    """Keep the header of each image that was read, for later reports; return their paths by UID."""
    target.mkdir()
    for file in earlier.glob("*.dcm") if earlier.is_dir() else ():
        (target / file.name).write_bytes(file.read_bytes())
    for file in files:
        if seen[file.stem].finding is not None:
            (target / file.name).write_bytes(strip_pixels(file))
    return {file.stem: file for file in target.glob("*.dcm")}


def _refer_to(file: Path) -> Report:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return Report(
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID
    )
