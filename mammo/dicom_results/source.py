"""What of the headers of an exam's images goes into the results, and nothing else of them.

Of the patient and the study: what every DICOM object of a study has to say (PS3.3 C.7.1.1, C.7.2.1,
types 1 and 2). Of an image: what the image library and the picture need. All other text stays in
the source: names of institutions, devices and persons, descriptions, comments, private elements.
"""

import io
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from mammo.base.errors import UserError
from mammo.dicom.container import open_content
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import OF_THE_OBJECT, Outline, read_outline
from mammo.dicom.reader import silence
from mammo.dicom.values import PARSING, is_uid, read_items, read_value_or_none
from mammo.dicom_results.codes import VIEW_MODIFIERS, Code
from mammo.serving.finding import (
    BreastFinding,
    ExamFinding,
    ImageFinding,
    Model,
    OperatingPoint,
    name_exam,
)
from mammo.serving.identity import Identity, read_identity

OF_THE_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
OF_THE_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID",
    "AccessionNumber",
)  # fmt: skip
COPIED = OF_THE_PATIENT + OF_THE_STUDY
"""The only elements whose text is copied as it is."""

_OF_AN_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ViewCodeSequence", "PatientOrientation",
    "ImagerPixelSpacing", "PixelSpacing", "BurnedInAnnotation", "LossyImageCompression",
)  # fmt: skip
_READ = ("SpecificCharacterSet", *COPIED, *_OF_AN_IMAGE)

_ORIENTATION = re.compile(r"[APLRHF]{1,3}")
_MOST_MICROMETERS = 1000.0
_SIDES = ("R", "L", None)  # as the breasts of a finding are ordered


@dataclass(frozen=True)
class Study:
    """The patient and the study, as the headers say; empty where they do not."""

    uid: str
    date: str  # YYYYMMDD
    time: str  # HHMMSS, or shorter, or with a fraction
    referring_physician: str = field(repr=False)
    study_id: str = field(repr=False)
    accession_number: str = field(repr=False)
    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    patient_birth_date: str = field(repr=False)
    patient_sex: str  # M, F, O or empty


@dataclass(frozen=True)
class Image:
    """One image of the exam, as its header says."""

    sop_class: str
    instance: str
    series: str
    laterality: str | None  # L or R
    view: str | None  # a key of mammo.dicom.view.VIEWS
    rows: int | None  # pixels
    columns: int | None
    modifiers: tuple[Code, ...]  # of the view
    orientation: tuple[str, str] | None  # where rows and columns point, such as ("A", "L")
    spacing: tuple[float, float] | None  # micrometers: from column to column, from row to row
    burned_in: str  # BurnedInAnnotation: YES, NO, or empty: not said
    lossy: bool  # compressed with loss once


@dataclass(frozen=True)
class Film:
    """An image that was read: what its header says, and what the model found in it."""

    image: Image
    finding: ImageFinding
    content: Path | bytes = field(repr=False)


@dataclass(frozen=True)
class Exam:
    """An exam's finding with what the headers say of its images."""

    model: Model
    operating_point: OperatingPoint
    aggregate: Literal["max", "mean"]  # of a breast's images
    breasts: tuple[BreastFinding, ...]  # none if no image was read
    study: Study
    films: tuple[Film, ...]  # in the order of the finding's images, each instance once
    unread: tuple[Image, ...]  # that could not be read, but for their headers

    @property
    def images(self) -> tuple[Image, ...]:
        """All images: those that were read in front."""
        return (*(film.image for film in self.films), *self.unread)


@dataclass(frozen=True)
class UnreadMammogram:
    """A mammogram that could not be read, whose header says which one it is."""

    content: Path | bytes = field(repr=False)
    identity: Identity
    shows: Outline

    @property
    def exam(self) -> str:
        """The key of the exam that it belongs to."""
        return name_exam(self.identity, 0)


def group_unread(sources: Iterable[Path | bytes]) -> dict[str, list[UnreadMammogram]]:
    """The mammograms among files that could not be read, by the keys of their exams.

    Left out is what no report can tell of: a file whose header is damaged as well, or lacks a UID
    that a report refers by, and an object of another kind than a mammogram.
    """
    silence()
    found: dict[str, list[UnreadMammogram]] = {}
    for source in sources:
        unread = _read_unread(source)
        if unread is not None:
            found.setdefault(unread.exam, []).append(unread)
    return found


def _read_unread(source: Path | bytes) -> UnreadMammogram | None:
    try:
        with open_content(source) as content:
            unread = UnreadMammogram(source, read_identity(source), read_outline(content))
        header = _read_header(source, "")
        _read_image(header, unread.shows, "")
        _read_study(header, "")
    except UserError:
        return None
    return unread


def read_exam(
    finding: ExamFinding,
    sources: Mapping[int, Path | bytes],
    unread: Sequence[UnreadMammogram] = (),
) -> Exam:
    """Read the headers of an exam's images.

    Args:
        finding: of the exam; its model has an operating point.
        sources: the file of each image, or its content, by `ImageFinding.number`.
        unread: images of the exam that could not be read; those of `finding` may be among them.

    Raises:
        UserError: a file cannot be read, or its header lacks a UID without which nothing can refer
            to it.
    """
    silence()  # pydicom quotes a value that it does not like
    films: dict[str, Film] = {}
    study = None
    for image in finding.images:
        source = sources[image.number]
        header = _read_header(source, name_of(image))
        shows = Outline(image.laterality, image.view, image.rows, image.columns)
        described = _read_image(header, shows, name_of(image))
        # The same image may have been given twice.
        films.setdefault(described.instance, Film(described, image, source))
        study = study or _read_study(header, name_of(image))
    assert study is not None  # an exam has an image
    assert finding.operating_point is not None
    return Exam(
        model=finding.model,
        operating_point=finding.operating_point,
        aggregate=finding.aggregate,
        breasts=finding.breasts,
        study=study,
        films=tuple(films.values()),
        unread=_read_images(unread, known=films),
    )


def read_unread_exam(
    unread: Sequence[UnreadMammogram],
    model: Model,
    operating_point: OperatingPoint,
    aggregate: Literal["max", "mean"],
) -> Exam:
    """Read the headers of an exam none of whose images could be read.

    Args:
        unread: its images, one at least, as `group_unread` gives them.
        model: that was to look at them.
        operating_point: the model's.
        aggregate: of a breast's images.

    Raises:
        UserError: a file is not there any more.
    """
    silence()
    study = _read_study(_read_header(unread[0].content, "image"), "image")
    images = _read_images(unread, known={})
    return Exam(model, operating_point, aggregate, (), study, (), images)


def _read_images(unread: Sequence[UnreadMammogram], known: Mapping[str, Film]) -> tuple[Image, ...]:
    """What the headers say of images that could not be read, each instance once: right, left."""
    images: dict[str, Image] = {}
    for one in unread:
        image = _read_image(_read_header(one.content, "image"), one.shows, "image")
        if image.instance not in known:
            images.setdefault(image.instance, image)
    return tuple(sorted(images.values(), key=lambda image: _SIDES.index(image.laterality)))


def strip_pixels(source: Path, unread: bool = False) -> bytes:
    """An image's header as a file, with what this module reads of it and nothing else.

    Args:
        source: its file.
        unread: with what says which view it shows, which no finding tells then.

    Raises:
        UserError: the file cannot be read.
    """
    silence()
    header = _read_header(source, "image", (*_READ, *OF_THE_OBJECT) if unread else _READ)
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", "")
    header.file_meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", "")
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    try:
        pydicom.dcmwrite(stream, header, enforce_file_format=True)
    except PARSING:
        raise UserError("image: its header is damaged: no report can refer to it") from None
    return stream.getvalue()


def name_of(image: ImageFinding) -> str:
    """What a sentence to the user calls the image's file."""
    return image.source or f"image {image.number}"


def _read_header(source: Path | bytes, name: str, keywords: Sequence[str] = _READ) -> Dataset:
    tags = [Tag(keyword) for keyword in keywords]
    try:
        with open_content(source) as content:
            content.seek(0)
            return pydicom.dcmread(content, specific_tags=tags, stop_before_pixels=True)
    except UnreadableDicom as error:
        raise UserError(f"{name}: {error.reason}") from None
    except PARSING:
        raise UserError(f"{name}: its header is damaged: no report can refer to it") from None


def _read_study(header: Dataset, name: str) -> Study:
    sex = _text(header, "PatientSex").upper()
    return Study(
        uid=_uid(header, "StudyInstanceUID", name),
        date=_if_valid(_text(header, "StudyDate"), "%Y%m%d"),
        time=_time(_text(header, "StudyTime")),
        referring_physician=_text(header, "ReferringPhysicianName"),
        study_id=_text(header, "StudyID"),
        accession_number=_text(header, "AccessionNumber"),
        patient_name=_text(header, "PatientName"),
        patient_id=_text(header, "PatientID"),
        patient_birth_date=_if_valid(_text(header, "PatientBirthDate"), "%Y%m%d"),
        patient_sex=sex if sex in ("M", "F", "O") else "",
    )


def _read_image(header: Dataset, shows: Outline, name: str) -> Image:
    # The origin's files state their class in the head of the file only.
    of_file = cast(Dataset, header.file_meta)
    where = header if "SOPClassUID" in header else of_file
    keyword = "SOPClassUID" if "SOPClassUID" in header else "MediaStorageSOPClassUID"
    burned_in = _text(header, "BurnedInAnnotation").upper()
    return Image(
        sop_class=_uid(where, keyword, name),
        instance=_uid(header, "SOPInstanceUID", name),
        series=_uid(header, "SeriesInstanceUID", name),
        laterality=shows.laterality,
        view=shows.view,
        rows=shows.height,
        columns=shows.width,
        modifiers=_read_modifiers(header),
        orientation=_read_orientation(header),
        spacing=_read_spacing(header),
        burned_in=burned_in if burned_in in ("YES", "NO") else "",
        lossy=_text(header, "LossyImageCompression") == "01",
    )


def _read_modifiers(header: Dataset) -> tuple[Code, ...]:
    """Those that CID 4015 knows, by their codes: a meaning is free text."""
    found = [
        VIEW_MODIFIERS.get(_text(modifier, "CodeValue"))
        for view in read_items(header, "ViewCodeSequence")[:1]
        for modifier in read_items(view, "ViewModifierCodeSequence")
    ]
    return tuple(dict.fromkeys(code for code in found if code is not None))


def _read_orientation(header: Dataset) -> tuple[str, str] | None:
    ends = _text(header, "PatientOrientation").split("\\")
    if len(ends) != 2 or not all(_ORIENTATION.fullmatch(end) for end in ends):
        return None
    return ends[0], ends[1]


def _read_spacing(header: Dataset) -> tuple[float, float] | None:
    """At the detector if the header says so, else the other one (PS3.3 10.7)."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        found = read_value_or_none(header, keyword)
        if not isinstance(found, MultiValue) or len(found) != 2:
            continue
        try:
            down, across = (1000 * float(value) for value in found)
        except PARSING:
            continue
        if all(math.isfinite(value) and 0 < value < _MOST_MICROMETERS for value in (down, across)):
            return across, down
    return None


def _uid(dataset: Dataset, keyword: str, name: str) -> str:
    found = _text(dataset, keyword)
    if is_uid(found):
        return found
    raise UserError(
        f"{name}: its header has no usable {keyword}, so that no DICOM object can refer to it: "
        "leave the file out, or write the exam's results in another format"
    )


def _text(dataset: Dataset, keyword: str) -> str:
    """A value as text, several as DICOM joins them; without what no viewer can show."""
    found = read_value_or_none(dataset, keyword)
    values = found if isinstance(found, MultiValue) else [found]
    texts = [str(value) for value in values if not isinstance(value, bytes | None)]
    return "".join(c for c in "\\".join(texts) if unicodedata.category(c) != "Cc").strip()


def _if_valid(written: str, format: str) -> str:
    try:
        datetime.strptime(written, format)
    except ValueError:
        return ""
    return written if len(written) == 8 else ""


def _time(written: str) -> str:
    found = re.fullmatch(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", written)
    return found[0] if found else ""
