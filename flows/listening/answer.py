"""The answer to a complete study: what the model finds in it, and the reports on the findings."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pydicom

from flows.listening.journal import Journal
from flows.listening.record import FILE, SeenImage, StudyRecord, read_record, write_record
from flows.listening.spool import HEADERS, RESULTS, Spool, find_last_arrival, list_images
from mammo.base.errors import UserError
from mammo.dicom_results.objects import WrittenReport
from mammo.dicom_results.source import UnreadMammogram, group_unread, strip_pixels
from mammo.dicom_results.write import REPORTS, Kind, write_results, write_unread
from mammo.serving.finding import (
    ExamFinding,
    ImageFinding,
    Model,
    OperatingPoint,
    group_exams,
)

if TYPE_CHECKING:  # it imports torch, and the node needs none to receive and to send
    from mammo.serving.exams import UnreadFile


@dataclass(frozen=True)
class Reader:
    """A model that is asked."""

    examine: Callable[[Sequence[Path]], Iterable["ImageFinding | UnreadFile"]]
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
    finding of then, unless another model found it. Such a report names the earlier one. An image
    that could not be read is named as such.

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
    images, reports = {**record.images, **seen}, dict(record.reports)
    lines = _describe_unread(reasons, journal)
    # One that could not be read before either is in the earlier report already.
    newly_unread = {uid for uid in reasons if not record.has_seen(uid, reader.model)}
    with spool.build_results() as built:
        (built / RESULTS).mkdir()
        headers = _keep_headers(built / HEADERS, earlier / HEADERS, files, seen)
        sources = headers | {file.stem: file for file in files}
        fresh = {one.finding.number for one in seen.values() if one.finding is not None}
        moment = datetime.fromtimestamp(find_last_arrival(folder))
        changed = _select_changed(images, headers, reader, fresh, newly_unread)
        for key, (exam, missing) in changed.items():
            before = _find_predecessors(reports, key, reader.model)
            common = built / RESULTS, kind, moment, before
            try:
                if exam is None:
                    written = write_unread(
                        missing, reader.model, reader.operating_point, reader.aggregate, *common
                    )
                else:
                    of_images = _find_sources(exam, sources)
                    written = write_results(exam, of_images, *common, fresh, missing)
            except UserError as error:
                lines.append({"step": "unreported", "exam": key, "reason": str(error)})
                continue
            report = _refer_to(written / REPORTS[kind])
            reports[key] = reader.model, report
            found = {"exam": key, **_describe(exam, missing, reader.model)}
            lines.append({"step": "predicted", **found, **_name_reports(report, before, journal)})
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


def _describe_unread(reasons: Mapping[str, str], journal: Journal) -> list[dict[str, object]]:
    """The journal's lines about images that cannot be read, by the reasons of these."""
    return [
        {"step": "unread", "image": journal.name_image(uid), "reason": reason}
        for uid, reason in reasons.items()
    ]


def _find_predecessors(
    reports: Mapping[str, tuple[Model, WrittenReport]], exam: str, model: Model
) -> list[WrittenReport]:
    """The last report on an exam, unless it is another model's: the new one has its content."""
    last = reports.get(exam)
    return [last[1]] if last is not None and last[0] == model else []


def _describe(
    exam: ExamFinding | None, unread: Sequence[UnreadMammogram], model: Model
) -> dict[str, object]:
    return {
        "images": 0 if exam is None else len(exam.images),
        **({"unread": len(unread)} if unread else {}),
        "decision": None if exam is None else exam.decision,
        "probability": None if exam is None else round(exam.probability, 6),
        "version": model.version,
        "snapshot": model.snapshot,
    }


def _name_reports(
    report: WrittenReport, before: Sequence[WrittenReport], journal: Journal
) -> dict[str, object]:
    return {
        "report": journal.name_image(report.instance),
        "follows": journal.name_image(before[0].instance) if before else None,
    }


def _group(images: Mapping[str, SeenImage], reader: Reader) -> list[ExamFinding]:
    """The exams, each with all its images that this model has seen."""
    findings = [
        seen.finding
        for seen in images.values()
        if seen.finding is not None and seen.model == reader.model
    ]
    return group_exams(findings, reader.model, reader.operating_point, reader.aggregate)


def _select_changed(
    images: Mapping[str, SeenImage],
    headers: Mapping[str, Path],
    reader: Reader,
    fresh: Collection[int],
    newly_unread: Collection[str],
) -> dict[str, tuple[ExamFinding | None, list[UnreadMammogram]]]:
    """The exams in which there is anything new, by their keys: the finding, and unread images.

    Args:
        images: of the study, by their UIDs.
        headers: of those that could not be read as well, by their UIDs.
        reader: the model.
        fresh: the numbers of the images that it was shown now.
        newly_unread: the UIDs of images that it could not be shown now, and were not known as such.
    """
    exams = {exam.key: exam for exam in _group(images, reader)}
    unread = _group_unread(images, headers, reader.model)
    return {
        key: (exams.get(key), unread.get(key, []))
        for key in dict.fromkeys([*exams, *unread])
        if _has_any(exams.get(key), fresh) or _have_any(unread.get(key, []), newly_unread)
    }


def _group_unread(
    images: Mapping[str, SeenImage], headers: Mapping[str, Path], model: Model
) -> dict[str, list[UnreadMammogram]]:
    """The images that this model could not be shown, by the keys of their exams."""
    uids = [uid for uid, seen in images.items() if seen.finding is None and seen.model == model]
    return group_unread(headers[uid] for uid in uids if uid in headers)


def _has_any(exam: ExamFinding | None, numbers: Collection[int]) -> bool:
    return exam is not None and any(image.number in numbers for image in exam.images)


def _have_any(unread: Sequence[UnreadMammogram], uids: Collection[str]) -> bool:
    return any(str(one.identity.instance) in uids for one in unread)


def _find_sources(exam: ExamFinding, sources: Mapping[str, Path]) -> dict[int, Path | bytes]:
    return {image.number: sources[str(image.identity.instance)] for image in exam.images}


def _keep_headers(
    target: Path, earlier: Path, files: Sequence[Path], seen: Mapping[str, SeenImage]
) -> dict[str, Path]:
    """Keep the header of each image, for reports to come; their paths by UID.

    Of one that could not be read there is none if no report can tell of it.
    """
    target.mkdir()
    for file in earlier.glob("*.dcm") if earlier.is_dir() else ():
        (target / file.name).write_bytes(file.read_bytes())
    for file in files:
        if seen[file.stem].finding is not None:
            (target / file.name).write_bytes(strip_pixels(file))
        elif group_unread([file]):
            with suppress(UserError):
                (target / file.name).write_bytes(strip_pixels(file, unread=True))
    return {file.stem: file for file in target.glob("*.dcm")}


def _refer_to(file: Path) -> WrittenReport:
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return WrittenReport(
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID
    )
