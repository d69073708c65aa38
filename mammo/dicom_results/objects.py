"""What every DICOM object of the results has: patient, study, series, device, UIDs, dates.

The same exam and the same model give the same bytes. So no clock and no chance is in them: dates
come from the study or from the caller, and UIDs are hashes: of a series, of what belongs into it;
of an object, of all that it says.
"""

import hashlib
import io
import json
import uuid
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass
from datetime import datetime

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from mammo.dicom_results.source import Exam, Image, Study
from mammo.serving.finding import NOTICE, Model

MANUFACTURER = "Mammoflow"
IMPLEMENTATION_VERSION = "MAMMOFLOW 1"

NO_DATE = "19000101"
"""Where a type 1 date is asked for, and neither the study nor the caller has one."""

NO_TIME = "000000"

_TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
"""The value representations that a character set matters to (PS3.5 6.1.2.3)."""

_UIDS = uuid.UUID("8a2d53f5-9b0e-5c53-a4f2-0e6cf1c8f6a3")
"""The name space of our UIDs: drawn once, by chance."""


@dataclass(frozen=True)
class Moment:
    """When a result was made."""

    date: str  # YYYYMMDD
    time: str  # HHMMSS, or with a fraction


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written, as another one refers to it."""

    sop_class: str
    instance: str
    series: str
    study: str


def find_moment(exam: Exam, made: datetime | None) -> Moment:
    """When the results of an exam were made: as the caller says, else the study's own date.

    The study's date keeps a result that is made again the same, byte for byte.
    """
    if made is not None:
        return Moment(made.strftime("%Y%m%d"), made.strftime("%H%M%S"))
    if not exam.study.date:
        return Moment(NO_DATE, NO_TIME)
    return Moment(exam.study.date, exam.study.time or NO_TIME)


def make_uid(*parts: str) -> str:
    """A UID that is a hash of `parts`: a UUID of version 5 under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_UIDS, json.dumps(parts)).int}"


def make_series_uid(exam: Exam, *parts: str) -> str:
    """The UID of a series: what one model says of one study in one form."""
    return make_uid("series", exam.study.uid, describe_exactly(exam.model), *parts)


def describe_exactly(model: Model) -> str:
    """All that tells a model from another one."""
    return json.dumps(asdict(model), sort_keys=True)


def describe_version(model: Model) -> str:
    """The model's version, and the digest of the snapshot that it can be made from again."""
    version = "not registered" if model.version is None else f"{model.version}"
    return f"{version}, snapshot {model.snapshot}" if model.snapshot else version


def list_parameters(exam: Exam) -> list[str]:
    """How the algorithm was set, a line each."""
    model, point = exam.model, exam.operating_point
    chosen = f"F{point.beta:g} on the {point.chosen_on} women"
    return [
        *([f"commit {model.commit}"] if model.commit else []),
        f"code {model.code}",
        f"aggregate {exam.aggregate} of a breast's images",
        f"operating point {percent(point.threshold)} % (highest {chosen})",
    ]


def percent(probability: float) -> str:
    """A probability in [0, 1] as a percentage of two digits after the point."""
    return f"{100 * probability:.2f}"


def start_object(
    exam: Exam, moment: Moment, sop_class: str, modality: str, series: tuple[str, int]
) -> Dataset:
    """The attributes that all results share (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1).

    Args:
        exam: whose patient and study the object belongs to.
        moment: when it was made.
        sop_class: UID.
        modality: SR or OT.
        series: UID and number.
    """
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    add_patient_and_study(dataset, exam.study)
    dataset.Modality = modality
    dataset.SeriesInstanceUID, dataset.SeriesNumber = series
    dataset.InstanceNumber = 1
    add_device(dataset, exam)
    dataset.ContentDate = moment.date
    dataset.ContentTime = moment.time
    return dataset


def add_patient_and_study(dataset: Dataset, study: Study) -> None:
    """Say whose study the object belongs to, as all objects of the study do."""
    dataset.PatientName = study.patient_name
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = study.patient_birth_date
    dataset.PatientSex = study.patient_sex
    dataset.StudyInstanceUID = study.uid
    dataset.StudyDate = study.date
    dataset.StudyTime = study.time
    dataset.ReferringPhysicianName = study.referring_physician
    dataset.StudyID = study.study_id
    dataset.AccessionNumber = study.accession_number


def add_device(dataset: Dataset, exam: Exam) -> None:
    """Say what made the object, and that it is for research."""
    model = exam.model
    dataset.SeriesDescription = NOTICE
    dataset.ContentQualification = "RESEARCH"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = model.name[:64]
    version = None if model.version is None else f"{model.version}"
    said = (version, model.snapshot, model.commit, model.code)
    dataset.SoftwareVersions = [one[:64] for one in said if one]


def list_evidence(exam: Exam) -> Sequence:
    """The images of the exam, series by series (PS3.3 C.17.2, table C.17-3)."""
    by_series: dict[str, list[Image]] = {}
    for image in exam.images:
        by_series.setdefault(image.series, []).append(image)
    series = []
    for uid, images in by_series.items():
        one = Dataset()
        one.ReferencedSOPSequence = Sequence([refer_to(image) for image in images])
        one.SeriesInstanceUID = uid
        series.append(one)
    study = Dataset()
    study.ReferencedSeriesSequence = Sequence(series)
    study.StudyInstanceUID = exam.study.uid
    return Sequence([study])


def refer_to(image: Image) -> Dataset:
    """A reference to an image."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.sop_class
    reference.ReferencedSOPInstanceUID = image.instance
    return reference


def name_predecessors(report: Dataset, predecessors: Many[WrittenReport]) -> None:
    """Refer to the reports whose content this one holds as well (PS3.3 C.17.2, table C.17-3)."""
    if not predecessors:
        return
    studies = []
    for earlier in predecessors:
        document = Dataset()
        document.ReferencedSOPClassUID = earlier.sop_class
        document.ReferencedSOPInstanceUID = earlier.instance
        series = Dataset()
        series.ReferencedSOPSequence = Sequence([document])
        series.SeriesInstanceUID = earlier.series
        study = Dataset()
        study.ReferencedSeriesSequence = Sequence([series])
        study.StudyInstanceUID = earlier.study
        studies.append(study)
    report.PredecessorDocumentsSequence = Sequence(studies)


def finish(dataset: Dataset) -> bytes:
    """The object as a file. Its UID becomes a hash of all else that it says.

    Text that is more than ASCII is in UTF-8, whatever the source's character set.
    """
    dataset.pop("SpecificCharacterSet", None)
    if not all(
        str(element.value).isascii() for element in dataset.iterall() if element.VR in _TEXT
    ):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPInstanceUID = ""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    said = hashlib.sha256(_encode(dataset, whole=False)).hexdigest()
    dataset.SOPInstanceUID = make_uid("object", said)
    dataset.file_meta.FileMetaInformationVersion = b"\x00\x01"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = pydicom.uid.UID(make_uid("implementation"))
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return _encode(dataset, whole=True)


def _encode(dataset: Dataset, whole: bool) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=whole)
    return stream.getvalue()
