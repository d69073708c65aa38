"""What a DICOM header says about a mammogram, checked before a pixel is touched.

Only the attributes that are asked for here are ever read: names, dates and free text stay in the
file, and thousands of elements that nobody asked for cost no memory.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom import uid
from pydicom.tag import Tag

from mammo.dicom_container import Content, is_deflated, pixel_data
from mammo.dicom_display import MAX_VALUE, VoiLut, read_voi_lut
from mammo.dicom_error import UnreadableDicom
from mammo.dicom_view import first_value, laterality, view

MAX_SIDE = 16384
"""Pixels. Film scanned at 25 micrometres has some 9,600; a header that says more is broken."""

MAX_PIXELS = 2**27
"""Of an image, 256 MiB of stored values: that film has 70 million."""

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
    view: str | None  # a key of dicom_view.VIEWS
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
        slope=float(first_value(dataset.get("RescaleSlope"), 1.0)),
        intercept=float(first_value(dataset.get("RescaleIntercept"), 0.0)),
        window=_window(dataset),
        voi_lut=read_voi_lut(dataset),
        padding=_padding(dataset),
        laterality=laterality(dataset),
        view=view(dataset),
        instance=_instance(dataset),
        secondary_capture=dataset.get("SOPClassUID") in _SECONDARY_CAPTURES,
        burned_in=str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES",
    )


def _instance(dataset: pydicom.Dataset) -> str | None:
    name = str(dataset.get("SOPInstanceUID") or "").strip()
    return hashlib.sha256(name.encode()).hexdigest()[:32] if name else None


def _window(dataset: pydicom.Dataset) -> tuple[float, float, str] | None:
    center, width = (
        first_value(dataset.get("WindowCenter"), None),
        first_value(dataset.get("WindowWidth"), None),
    )
    function = str(first_value(dataset.get("VOILUTFunction"), "LINEAR"))
    if center is None or width is None:
        return None
    smallest = 1.0 if function == "LINEAR" else 1 / MAX_VALUE  # PS3.3 C.11.2.1.2, .3
    usable = abs(float(center)) < MAX_VALUE and smallest <= float(width) < MAX_VALUE
    if not usable or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    return float(center), float(width), function


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    value = first_value(dataset.get("PixelPaddingValue"), None)
    if not isinstance(value, int):
        return None
    limit = first_value(dataset.get("PixelPaddingRangeLimit"), value)
    return min(value, int(limit)), max(value, int(limit))
