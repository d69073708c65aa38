"""What a DICOM header says about a mammogram, checked before a pixel is touched.

Only the attributes that are asked for here are ever read: names, dates and free text stay in the
file, and thousands of elements that nobody asked for cost no memory.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from mammo.dicom_container import Content, is_deflated, size_of
from mammo.dicom_display import MAX_VALUE, VoiLut, read_voi_lut
from mammo.dicom_error import UnreadableDicom

MAX_SIDE = 16384
"""Pixels. Film scanned at 25 micrometres has some 9,600; a header that says more is broken."""

MAX_PIXELS = 2**27
"""Of an image, 256 MiB of stored values: that film has 70 million."""

VIEWS: dict[str, tuple[str, ...]] = {
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "AT": (),  # axillary tail: a view in RSNA 2023, a modifier of one in DICOM
}
"""Acronyms of the views, and their codes in SNOMED CT and its predecessor (PS3.16 CID 4014).

The codes are written out because importing pydicom.sr.codes takes two seconds in each process.
"""

_READ = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "ViewPosition",
    "ViewCodeSequence", "ImageLaterality", "Laterality", "PatientOrientation",
    "BurnedInAnnotation", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "VOILUTSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData",
]  # fmt: skip
"""All that is read of a file."""

_READ_TAGS = [Tag(keyword) for keyword in _READ]

_LARGE = 2**20
"""Bytes of an element that is not copied out of the file. Lookup tables have less."""

_SECONDARY_CAPTURES = {
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
}
_MODALITIES = {
    "CR": "a plain radiograph (CR)",
    "CT": "a CT slice",
    "DX": "a plain radiograph (DX)",
    "ECG": "an electrocardiogram",
    "MR": "an MR slice",
    "NM": "a scintigram (NM)",
    "OT": "of no particular kind (OT)",
    "PT": "a PET slice",
    "PR": "a presentation state (PR)",
    "RTDOSE": "a radiation dose",
    "RTPLAN": "a radiation plan",
    "SEG": "a segmentation",
    "SR": "a written report (SR)",
    "US": "an ultrasound image",
    "XA": "an angiogram (XA)",
}
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian


@dataclass(frozen=True)
class Header:
    """The facts that decide how pixels become grey."""

    width: int  # pixels
    height: int
    transfer_syntax: str  # UID
    photometric: str  # MONOCHROME1 or MONOCHROME2
    bits_allocated: int  # 8 or 16
    bits_stored: int
    high_bit: int | None  # bits_stored - 1, if the stored bits are the lowest
    signed: bool
    slope: float  # of the modality rescale
    intercept: float
    window: tuple[float, float, str] | None  # centre, width, function: the first one
    voi_lut: VoiLut | None  # the first one
    padding: tuple[int, int] | None  # stored values that are no image, both ends included
    laterality: str | None  # L or R
    view: str | None  # one of VIEWS
    instance: str | None  # a hash of SOPInstanceUID: tells copies, and not where they are from
    secondary_capture: bool  # of a film or a screen, as in CBIS-DDSM: not made by the machine
    burned_in: bool  # BurnedInAnnotation: the pixels may name the patient

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values in memory."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def read_header(content: Content) -> tuple[Header, pydicom.Dataset]:
    """Parse a DICOM file's content and check that it describes one grey image we can decode.

    Large pixel data stay where they are: see `pixel_data`.

    Raises:
        UnreadableDicom: it is no DICOM file, is cut short, or describes something else.
    """
    content.seek(0)
    if content.read(132)[128:] != b"DICM":
        raise UnreadableDicom("it is not a DICOM file")
    # What is unpacked has no place in the content, so it cannot be left there.
    large = None if is_deflated(content) else _LARGE
    content.seek(0)
    try:
        dataset = pydicom.dcmread(
            cast(BinaryIO, content), specific_tags=_READ_TAGS, defer_size=large
        )
        _refuse_other_objects(dataset)
        _refuse_other_images(dataset, content)
        header = _parse(dataset)
    except (UnreadableDicom, MemoryError):
        raise
    except Exception:
        # pydicom meets a damaged header with a dozen kinds of error, and quotes from it.
        raise UnreadableDicom("its header is damaged") from None
    _refuse_other_pixels(header)
    return header, dataset


def pixel_data(dataset: pydicom.Dataset, content: Content) -> tuple[Content, int]:
    """A stream at the first byte of PixelData, and how many it has: fewer than the header says, if
    the file is cut short."""
    element = dataset.get_item("PixelData", keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and element.length:
        rest = size_of(content) - element.value_tell
        content.seek(element.value_tell)
        return content, max(0, min(element.length, rest))
    value = bytes(dataset.PixelData or b"")
    return io.BytesIO(value), len(value)


def _refuse_other_objects(dataset: pydicom.Dataset) -> None:
    """What is no mammogram at all. The origin's data state neither modality nor class."""
    modality = str(dataset.get("Modality") or "MG").strip().upper()
    if modality != "MG":
        what = _MODALITIES.get(modality, "something else")
        raise UnreadableDicom(f"its header says that it is {what}, not a mammogram (MG)")
    if dataset.get("SOPClassUID") == uid.BreastTomosynthesisImageStorage:
        raise UnreadableDicom("it is a tomosynthesis, not a mammogram")


def _refuse_other_pixels(header: Header) -> None:
    width, height = header.width, header.height
    if not 0 < min(width, height) <= max(width, height) <= MAX_SIDE:
        raise UnreadableDicom(
            f"its header claims {width} x {height} pixels; each side must have 1 to {MAX_SIDE}"
        )
    if width * height > MAX_PIXELS:
        raise UnreadableDicom(
            f"its header claims {width} x {height} pixels; more than {MAX_PIXELS} are not read"
        )
    if header.bits_allocated not in (8, 16) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise UnreadableDicom(
            f"its pixels have {header.bits_stored} bits in {header.bits_allocated}; "
            "only whole numbers of up to 16 bits can be read"
        )
    # A JPEG or JPEG 2000 stream says itself where its bits are.
    by_header = header.transfer_syntax == uid.RLELossless or not _encapsulated(header)
    if by_header and header.high_bit not in (None, header.bits_stored - 1):
        raise UnreadableDicom(
            f"its header puts the highest of {header.bits_stored} bits in an odd place (HighBit "
            f"{header.high_bit}): what the pixels mean is not certain"
        )
    if not (0 < abs(header.slope) < MAX_VALUE and abs(header.intercept) < MAX_VALUE):
        raise UnreadableDicom("its rescale slope or intercept is not a usable number")


def _encapsulated(header: Header) -> bool:
    syntax = uid.UID(header.transfer_syntax)
    return syntax.is_transfer_syntax and syntax.is_encapsulated


def _refuse_other_images(dataset: pydicom.Dataset, content: Content) -> None:
    if "PixelData" not in dataset:
        if any(name in dataset for name in ("FloatPixelData", "DoubleFloatPixelData")):
            raise UnreadableDicom("its pixels are floating-point numbers, which are not supported")
        content.seek(0)
        read = content.read()
        if any(tag in read for tag in _PIXEL_DATA_TAGS):
            raise UnreadableDicom("the file is cut short: its pixel data have no end")
        raise UnreadableDicom("it holds no pixel data, or is cut short before them")
    if pixel_data(dataset, content)[1] == 0:
        raise UnreadableDicom("its pixel data are empty")
    if not dataset.file_meta.get("TransferSyntaxUID"):
        raise UnreadableDicom("it does not say how its pixels are encoded (no transfer syntax)")
    missing = [
        name
        for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
        if dataset.get(name) is None
    ]
    if missing:
        raise UnreadableDicom(f"its header lacks {', '.join(missing)}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableDicom(f"it holds {frames} frames; a mammogram has one")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise UnreadableDicom("it is a colour image; a mammogram is grey")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableDicom("it is neither MONOCHROME1 nor MONOCHROME2: not a grey image")
    if dataset.get("PixelRepresentation") not in (None, 0, 1):
        raise UnreadableDicom("its header does not say whether its pixels are signed")
    if dataset.get("ModalityLUTSequence"):
        raise UnreadableDicom("its values need a modality lookup table, which is not supported")


def _parse(dataset: pydicom.Dataset) -> Header:
    bits_allocated = int(dataset.BitsAllocated)
    return Header(
        width=int(dataset.Columns),
        height=int(dataset.Rows),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        photometric=str(dataset.PhotometricInterpretation),
        bits_allocated=bits_allocated,
        bits_stored=int(dataset.get("BitsStored") or bits_allocated),
        high_bit=dataset.get("HighBit"),
        signed=bool(dataset.get("PixelRepresentation") or 0),
        slope=float(_first(dataset.get("RescaleSlope"), 1.0)),
        intercept=float(_first(dataset.get("RescaleIntercept"), 0.0)),
        window=_window(dataset),
        voi_lut=read_voi_lut(dataset),
        padding=_padding(dataset),
        laterality=_laterality(dataset),
        view=_view(dataset),
        instance=_instance(dataset),
        secondary_capture=dataset.get("SOPClassUID") in _SECONDARY_CAPTURES,
        burned_in=str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES",
    )


def _instance(dataset: pydicom.Dataset) -> str | None:
    name = str(dataset.get("SOPInstanceUID") or "").strip()
    return hashlib.sha256(name.encode()).hexdigest()[:32] if name else None


def _first(value: Any, default: Any) -> Any:
    """The first of possibly several values, or `default` if there is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return default if value in (None, "") else value


def _window(dataset: pydicom.Dataset) -> tuple[float, float, str] | None:
    center, width = (
        _first(dataset.get("WindowCenter"), None),
        _first(dataset.get("WindowWidth"), None),
    )
    function = str(_first(dataset.get("VOILUTFunction"), "LINEAR"))
    if center is None or width is None:
        return None
    smallest = 1.0 if function == "LINEAR" else 1 / MAX_VALUE  # PS3.3 C.11.2.1.2, .3
    usable = abs(float(center)) < MAX_VALUE and smallest <= float(width) < MAX_VALUE
    if not usable or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    return float(center), float(width), function


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    value = _first(dataset.get("PixelPaddingValue"), None)
    if not isinstance(value, int):
        return None
    limit = _first(dataset.get("PixelPaddingRangeLimit"), value)
    return min(value, int(limit)), max(value, int(limit))


def _laterality(dataset: pydicom.Dataset) -> str | None:
    """L or R: MG's ImageLaterality, older objects' Laterality, or the series' description."""
    for name in ("ImageLaterality", "Laterality"):
        side = _SIDES.get(str(dataset.get(name) or "").strip().upper())
        if side:
            return side
    sides = {_SIDES[word] for word in _words(dataset) if word in _SIDES}
    sides |= {word[0] for word in _words(dataset) if _is_side_and_view(word)}
    return sides.pop() if len(sides) == 1 else None


def _view(dataset: pydicom.Dataset) -> str | None:
    """A key of VIEWS: from ViewPosition, the coded view, or where other makers put it.

    Film scanned to secondary captures has it in PatientOrientation (CBIS-DDSM) or in the series'
    description.
    """
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    if position in VIEWS:
        return position
    for item in dataset.get("ViewCodeSequence") or []:
        for view, known in VIEWS.items():
            if item.get("CodeValue") in known:
                return view
    orientation = str(_first(dataset.get("PatientOrientation"), "")).strip().upper()
    if orientation in VIEWS:
        return orientation
    views = {word for word in _words(dataset) if word in VIEWS}
    views |= {word[1:] for word in _words(dataset) if _is_side_and_view(word)}
    return views.pop() if len(views) == 1 else None


def _is_side_and_view(word: str) -> bool:
    """LCC, RMLO and the like; but LAT says lateral, and not the left axillary tail."""
    return word[:1] in _SIDES and word[1:] in VIEWS and word != "LAT"


def _words(dataset: pydicom.Dataset) -> list[str]:
    return re.findall(r"[A-Z]+", str(dataset.get("SeriesDescription") or "").upper())
