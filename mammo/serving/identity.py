"""The ids in a mammogram's header: for an answer that goes back to where the image came from.

Nothing that trains a model reads them.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from mammo.dicom.container import open_content, read_elements
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.values import first_of, read_items, read_text, read_value_or_none


@dataclass(frozen=True)
class Identity:
    """The ids in an image's header, each None if there is none that can be read.

    They are as in the header, but for spaces around them.
    """

    instance: str | None  # SOPInstanceUID
    sop_class: str | None  # SOPClassUID
    series: str | None  # SeriesInstanceUID
    study: str | None  # StudyInstanceUID
    patient: str | None = field(repr=False)  # PatientID


_KEYWORDS = {
    "instance": "SOPInstanceUID",
    "sop_class": "SOPClassUID",
    "series": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "patient": "PatientID",
}


def read_identity(source: Path | bytes) -> Identity:
    """Read the ids of a file, or of a file's content.

    Raises:
        UnreadableDicom: it is no DICOM file, or its header is damaged.
    """
    with open_content(source) as content:
        dataset = read_elements(content, list(_KEYWORDS.values()), stop_before_pixels=True)
        return Identity(**{name: _text(dataset, word) for name, word in _KEYWORDS.items()})


def list_directory(path: Path) -> list[tuple[str, ...]]:
    """The files of images that a DICOMDIR names, in its order: each as the parts of a path.

    Parts are as they were written (PS3.10 8.2): the caller decides whether to follow them.

    Raises:
        UnreadableDicom: it is no DICOM file, its header is damaged, or it lists no images.
    """
    files = []
    with open_content(path) as content:
        dataset = read_elements(content, ["DirectoryRecordSequence"])
        for record in read_items(dataset, "DirectoryRecordSequence"):
            named = read_value_or_none(record, "ReferencedFileID")
            if read_text(record, "DirectoryRecordType") == "IMAGE" and named is not None:
                parts = [named] if isinstance(named, str) else named
                files.append(tuple(str(part) for part in parts))
    if not files:
        raise UnreadableDicom("it lists no images", str(path))
    return files


def _text(dataset: pydicom.Dataset, keyword: str) -> str | None:
    found = first_of(read_value_or_none(dataset, keyword))
    return None if found is None or isinstance(found, bytes) else str(found).strip() or None
