"""Words, dates and numbers that stand for what is personal, planted wherever a file can hold them.

None of them may be found anywhere outside `data/` and its copy in DVC's cache.
"""

import base64
import zlib
from pathlib import Path

import pydicom
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mammo.dicom.header import _READ

WORD, DATE, UID = "Zorgla", "18470211", "1.2.999.4711"

_BY_VR = {
    "AE": WORD, "AS": "847Y", "CS": WORD.upper(), "DA": DATE, "DT": f"{DATE}101112", "LO": WORD,
    "LT": f"{WORD} said that", "PN": f"{WORD}^Anna=安娜", "SH": WORD, "ST": f"{WORD} was there",
    "UC": WORD, "UI": f"{UID}.1", "UR": f"https://{WORD.lower()}.example/", "UT": f"ask {WORD}",
}  # fmt: skip
_NOT_NEEDED = {
    "SeriesDescription", "SOPInstanceUID", "ImageType", "PatientID", "PresentationIntentType",
    "BodyPartExamined", "AnatomicRegionSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
}  # fmt: skip
_NEEDED = {*_READ, "SpecificCharacterSet"} - _NOT_NEEDED
_USUAL = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientAge", "OtherPatientNames",
    "PatientAddress", "PatientComments", "StudyDate", "ContentDate", "AcquisitionDateTime",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "OperatorsName",
    "StudyDescription", "SeriesDescription", "ImageComments", "AccessionNumber", "StudyID",
    "StationName", "DeviceSerialNumber", "ProtocolName", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "RetrieveURL",
]  # fmt: skip


def needles() -> list[bytes]:
    """What to search for, in lower-case bytes; also as it looks inside base64."""
    plain = [WORD.lower(), DATE, "1847-02-11", UID, "安娜"]
    encoded = [
        base64.b64encode(b" " * shift + text.encode())[4:-4].decode().lower()
        for text in (WORD, DATE, UID)
        for shift in (1, 2, 3)
    ]
    return [text.encode() for text in plain + [text for text in encoded if len(text) >= 6]]


def found_in(content: bytes) -> list[bytes]:
    """The markers in it."""
    lower = content.lower()
    return [needle for needle in needles() if needle in lower]


def search(root: Path) -> tuple[list[Path], dict[str, list[bytes]]]:
    """Search what a project holds besides the data, and besides DVC's cache, which has them too.

    Returns:
        The files that were searched; and the markers in each that has any, in bytes or in its name.
    """
    personal = [root / "data", root / ".dvc/cache/files"]
    searched = [
        path
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(folder) for folder in personal)
    ]
    guilty = {
        str(path): found
        for path in searched
        if (found := found_in(_unpack(path)) or found_in(path.name.encode()))
    }
    return searched, guilty


def _unpack(path: Path) -> bytes:
    """A file's bytes; those of a git object are packed."""
    content = path.read_bytes()
    if ".git/objects" in path.as_posix() and "pack" not in path.parts:
        return zlib.decompress(content)
    return content


def plant(data: Path) -> None:
    """Put the markers into every file of a data set, and into names of files that no row names.

    Some files get one in each element of the dictionary that holds text, all files in the usual
    ones, in sequences, private tags, UIDs and the preamble.
    """
    files = sorted((data / "train_images").rglob("*.dcm"))
    everything, usual = _marked(_every_keyword()), _marked(_USUAL)
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        dataset.update(usual if number % 40 else everything)
        for item in dataset.get("ViewCodeSequence") or []:
            item.CodeMeaning = WORD
        dataset.BurnedInAnnotation = "YES"
        dataset.SOPInstanceUID = f"{UID}.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.preamble = WORD.encode().ljust(128)
        dataset.save_as(path)
    (data / "train_images" / f"{WORD}^Anna.dcm").write_bytes(files[0].read_bytes())
    (data / f"{WORD}, {DATE}.txt").write_text(f"{WORD}\n")


def _every_keyword() -> list[str]:
    """Of the elements that hold text or a sequence, but for those that the picture needs."""
    return [
        keyword
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if keyword not in _NEEDED and tag >> 16 > 2 and (vr in _BY_VR or vr == "SQ")
    ]


def _marked(keywords: list[str]) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    sequence = Sequence([_item()])
    for keyword in [*keywords, "OtherPatientIDsSequence", "RequestAttributesSequence"]:
        vr = dictionary_VR(keyword)
        value = sequence if vr == "SQ" else _BY_VR[vr]
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        dataset.add_new(tag, vr, value)
    block = dataset.private_block(0x0099, f"{WORD} Inc.", create=True)
    for offset, vr in enumerate(_BY_VR):
        block.add_new(offset, vr, _BY_VR[vr])
    return dataset


def _item() -> Dataset:
    """An item of a sequence, with another one in it."""
    item, inner = Dataset(), Dataset()
    inner.PersonName = inner.PatientName = _BY_VR["PN"]
    inner.PatientBirthDate = DATE
    item.PatientID = item.TextValue = WORD
    item.ReferencedSOPInstanceUID = f"{UID}.9"
    item.ReferencedStudySequence = Sequence([inner])
    return item
