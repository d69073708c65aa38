"""What a DICOM header says about a mammogram, checked before a pixel is touched.

Only the attributes that this module asks for are ever read: names, dates and free text stay in the
file, and thousands of elements that nobody asked for cost no memory.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from pydicom import uid

from mammo.dicom.container import Content, find_pixel_data, is_deflated, read_elements
from mammo.dicom.display import MAX_VALUE, VoiLut, read_voi_lut
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.object_type import is_generated_2d, is_secondary_capture, refuse_other_objects
from mammo.dicom.values import (
    find_holder,
    has_value,
    read_integer,
    read_number,
    read_number_or_none,
    read_text,
    read_value,
)
from mammo.dicom.view import read_laterality, read_view

MAX_SIDE = 16384
"""Pixels. Film scanned at 25 micrometres has about 9,600; a header that says more is broken."""

MAX_PIXELS = 2**27
"""Of an image, 256 MiB of stored values: that film has 70 million."""

SMALLEST_FILM = 600
"""Pixels of the longer side of a film. The smallest films have 24 cm, so that is 0.4 mm a pixel,
twice as coarse as the coarsest collection (mini-MIAS, 0.2 mm): less is cut out of one."""

_READ = [
    "ImageType", "FrameType", "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType",
    "SeriesDescription", "PatientID", "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition",
    "ViewCodeSequence", "ImageLaterality", "Laterality", "PatientOrientation",
    "BurnedInAnnotation", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "VOILUTSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""The only elements of a file that are read."""

OF_THE_OBJECT = [
    "ImageType", "FrameType", "SOPClassUID", "Modality", "PresentationIntentType",
    "SeriesDescription", "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition",
    "ViewCodeSequence", "ImageLaterality", "Laterality", "PatientOrientation", "Rows", "Columns",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""The elements that `read_outline` reads."""

_LARGE = 2**20
"""Bytes from which on an element is left in the file. Lookup tables have less."""

_FUNCTIONS = {
    "": "LINEAR",  # PS3.3 C.11.2.1.3
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
    "SAMPLED_SIGMOID": "SIGMOID",
}
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian


WINDOW, TABLE, PADDING = GREYS = ("window", "VOI lookup table", "padding")
"""What a header may say of the greys. An image can be shown without it."""


@dataclass(frozen=True)
class Description:
    """What a header says of an image, and stays true of it at another size."""

    laterality: str | None  # L or R, whichever way the image is turned later
    view: str | None  # a key of view.VIEWS
    transfer_syntax: str  # UID
    photometric: str  # MONOCHROME1 or MONOCHROME2
    instance: str | None  # a hash of SOPInstanceUID: tells copies, and not where they are from
    # A hash of PatientID. It must not be written: short ids can be found by trying all of them.
    patient: str | None = field(repr=False)
    secondary_capture: bool  # of a film or a screen, as in CBIS-DDSM: not made by the machine
    generated_2d: bool  # calculated from a tomosynthesis, not an exposure of its own
    burned_in: bool | None  # BurnedInAnnotation: the pixels may name the patient; None: not said
    ignored: tuple[str, ...]  # of GREYS: what the header says, but makes no sense


@dataclass(frozen=True)
class Outline:
    """What a header says that an image shows; each None if it does not say."""

    laterality: str | None  # L or R
    view: str | None  # a key of view.VIEWS
    height: int | None  # pixels
    width: int | None


@dataclass(frozen=True)
class Header:
    """The facts that decide how pixels become grey."""

    description: Description
    width: int  # pixels
    height: int
    bits_allocated: int  # 8 or 16
    bits_stored: int
    high_bit: int | None  # bits_stored - 1, if the stored bits are the lowest
    signed: bool
    slope: float  # of the modality rescale
    intercept: float
    window: tuple[float, float, str] | None  # centre, width, function: the first one
    voi_lut: VoiLut | None  # the first one
    padding: tuple[int, int] | None  # stored values that are no image, both ends included

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values in memory."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def read_header(content: Content) -> tuple[Header, pydicom.Dataset]:
    """Parse a DICOM file's content and check that it describes one grey image we can decode.

    Large pixel data stay where they are: see `find_pixel_data`.

    Raises:
        UnreadableDicom: it is no DICOM file, is cut short, or describes something else.
    """
    # What was unpacked is not in the file, so it cannot be left there.
    large = None if is_deflated(content) else _LARGE
    dataset = read_elements(content, _READ, defer_size=large)
    refuse_other_objects(dataset)
    _refuse_other_images(dataset, content)
    header = _read_grey_facts(dataset)
    _refuse_other_pixels(header)
    return header, dataset


def read_outline(content: Content) -> Outline:
    """What a mammogram shows whose pixels cannot be read: its pixel data are not looked at.

    Raises:
        UnreadableDicom: the header cannot be read, or is that of another kind of object.
    """
    dataset = read_elements(content, OF_THE_OBJECT, stop_before_pixels=True)
    refuse_other_objects(dataset)
    height, width = (read_number_or_none(dataset, name) for name in ("Rows", "Columns"))
    return Outline(read_laterality(dataset), read_view(dataset), _count(height), _count(width))


def _count(found: float | None) -> int | None:
    return int(found) if found is not None and 0 < found <= MAX_SIDE else None


def read_patient_hash(content: Content) -> str | None:
    """`Description.patient` by itself.

    Raises:
        UnreadableDicom: as `read_header`.
    """
    dataset = read_elements(content, ["PatientID"], stop_before_pixels=True)
    return _hash_element(dataset, "PatientID")


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
    if header.description.secondary_capture and max(width, height) < SMALLEST_FILM:
        raise UnreadableDicom(
            f"it has {width} x {height} pixels, too few for a scanned film (the longer side has "
            f"{SMALLEST_FILM} at least): it is a piece of one, or made small"
        )
    if header.bits_allocated not in (8, 16) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise UnreadableDicom(
            f"its pixels have {header.bits_stored} bits in {header.bits_allocated}; "
            "only whole numbers of up to 16 bits can be read"
        )
    if not _stream_tells_bits(header.description.transfer_syntax) and header.high_bit not in (
        None,
        header.bits_stored - 1,
    ):
        raise UnreadableDicom(
            f"its header puts the highest of {header.bits_stored} bits in an unusual position "
            f"(HighBit {header.high_bit}): what the pixels mean is not certain"
        )
    if not (0 < abs(header.slope) < MAX_VALUE and abs(header.intercept) < MAX_VALUE):
        raise UnreadableDicom("its rescale slope or intercept is not a usable number")


def _stream_tells_bits(transfer_syntax: str) -> bool:
    """Whether the pixel data say themselves where their bits are, as JPEG and JPEG 2000 do."""
    syntax = uid.UID(transfer_syntax)
    return syntax != uid.RLELossless and syntax.is_transfer_syntax and syntax.is_encapsulated


def _refuse_other_images(dataset: pydicom.Dataset, content: Content) -> None:
    if "PixelData" not in dataset:
        if any(name in dataset for name in ("FloatPixelData", "DoubleFloatPixelData")):
            raise UnreadableDicom("its pixels are floating-point numbers, which are not supported")
        content.seek(0)
        read = content.read()
        if any(tag in read for tag in _PIXEL_DATA_TAGS):
            raise UnreadableDicom("the file is cut short: its pixel data have no end")
        raise UnreadableDicom("it holds no pixel data, or is cut short before them")
    if find_pixel_data(dataset, content)[1] == 0:
        raise UnreadableDicom("its pixel data are empty")
    if not _read_transfer_syntax(dataset):
        raise UnreadableDicom("it does not say how its pixels are encoded (no transfer syntax)")
    missing = [
        name
        for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
        if read_value(dataset, name) is None
    ]
    if missing:
        raise UnreadableDicom(f"its header lacks {', '.join(missing)}")
    frames = read_integer(dataset, "NumberOfFrames") or 1
    if frames != 1:
        raise UnreadableDicom(f"it holds {frames} frames; a mammogram has one")
    if (read_number_or_none(dataset, "SamplesPerPixel") or 1) != 1:
        raise UnreadableDicom("it is a colour image; a mammogram is grey")
    if read_text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableDicom("it is neither MONOCHROME1 nor MONOCHROME2: not a grey image")
    if read_integer(dataset, "PixelRepresentation") not in (None, 0, 1):
        raise UnreadableDicom("its header does not say whether its pixels are signed")
    if read_value(dataset, "ModalityLUTSequence"):
        raise UnreadableDicom("its values need a modality lookup table, which is not supported")


def _read_transfer_syntax(dataset: pydicom.Dataset) -> str:
    return str(read_value(dataset.file_meta, "TransferSyntaxUID") or "")


def _read_grey_facts(dataset: pydicom.Dataset) -> Header:
    rescale = find_holder(dataset, "RescaleSlope", "PixelValueTransformationSequence")
    slope, intercept = (
        read_number(rescale, "RescaleSlope"),
        read_number(rescale, "RescaleIntercept"),
    )
    slope = 1.0 if slope is None else slope
    intercept = 0.0 if intercept is None else intercept
    syntax = _read_transfer_syntax(dataset)
    # A stream that says itself how many bits there are is believed, and the header is not needed.
    bits = read_number_or_none if _stream_tells_bits(syntax) else read_integer
    bits_allocated = read_integer(dataset, "BitsAllocated") or 0
    high_bit = bits(dataset, "HighBit")
    voi = find_holder(dataset, "WindowCenter", "FrameVOILUTSequence")
    tables = find_holder(dataset, "VOILUTSequence", "FrameVOILUTSequence")
    window, voi_lut = _read_window(voi), read_voi_lut(tables, slope, intercept)
    padding = _read_padding(dataset)
    of_no_use = {
        WINDOW: window is None
        and (has_value(voi, "WindowCenter") or has_value(voi, "WindowWidth")),
        TABLE: voi_lut is None and has_value(tables, "VOILUTSequence"),
        PADDING: padding is None and has_value(dataset, "PixelPaddingValue"),
    }
    return Header(
        description=_describe(dataset, ignored=tuple(name for name, so in of_no_use.items() if so)),
        width=read_integer(dataset, "Columns") or 0,
        height=read_integer(dataset, "Rows") or 0,
        bits_allocated=bits_allocated,
        bits_stored=int(bits(dataset, "BitsStored") or bits_allocated),
        high_bit=None if high_bit is None else int(high_bit),
        signed=read_integer(dataset, "PixelRepresentation") == 1,
        slope=slope,
        intercept=intercept,
        window=window,
        voi_lut=voi_lut,
        padding=padding,
    )


def _describe(dataset: pydicom.Dataset, ignored: tuple[str, ...]) -> Description:
    return Description(
        laterality=read_laterality(dataset),
        view=read_view(dataset),
        transfer_syntax=_read_transfer_syntax(dataset),
        photometric=read_text(dataset, "PhotometricInterpretation"),
        instance=_hash_element(dataset, "SOPInstanceUID"),
        patient=_hash_element(dataset, "PatientID"),
        secondary_capture=is_secondary_capture(dataset),
        generated_2d=is_generated_2d(dataset),
        burned_in={"YES": True, "NO": False}.get(read_text(dataset, "BurnedInAnnotation")),
        ignored=ignored,
    )


def _hash_element(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """A hash that tells two values apart, and not what they are; None if there is no value."""
    name = read_text(dataset, keyword)
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32] if name else None


def _read_window(dataset: pydicom.Dataset) -> tuple[float, float, str] | None:
    center, width = (read_number_or_none(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    written = re.sub(r"[^A-Z]+", "_", read_text(dataset, "VOILUTFunction"))
    function = _FUNCTIONS.get(written)
    if center is None or width is None or function is None:
        return None
    smallest = 1.0 if function == "LINEAR" else 1 / MAX_VALUE  # PS3.3 C.11.2.1.2, .3
    usable = abs(center) < MAX_VALUE and smallest <= width < MAX_VALUE
    return (center, width, function) if usable else None


def _read_padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """None also where it cannot be read: the image is all there without it."""
    found, limit = (
        read_number_or_none(dataset, name)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    if found is None or not found.is_integer():
        return None
    ends = (found, limit if limit is not None and limit.is_integer() else found)
    return int(min(ends)), int(max(ends))
