"""What a DICOM header says about a mammogram, checked before a pixel is touched.

Only the attributes that are asked for here are ever read: names, dates and free text stay in the
file, and thousands of elements that nobody asked for cost no memory.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom import uid
from pydicom.tag import Tag

from mammo.dicom.container import Content, is_deflated, pixel_data
from mammo.dicom.display import MAX_VALUE, VoiLut, read_voi_lut
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.values import (
    PARSING,
    first,
    is_said,
    items,
    number,
    number_if_readable,
    text,
    unreadable,
    value,
    value_if_readable,
    whole,
)
from mammo.dicom.view import laterality, of_a_breast, view, words

MAX_SIDE = 16384
"""Pixels. Film scanned at 25 micrometres has some 9,600; a header that says more is broken."""

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
"""All that is read of a file."""

_READ_TAGS = [Tag(keyword) for keyword in _READ]

_LARGE = 2**20
"""Bytes of an element that is not copied out of the file. Lookup tables have less."""

_SECONDARY_CAPTURES = {
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
}
_FOR_PROCESSING = {
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.DigitalXRayImageStorageForProcessing,
    uid.BreastProjectionXRayImageStorageForProcessing,
}
_MAMMOGRAMS = {
    "",  # the origin's data state none
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
}
_TOMOSYNTHESIS = {
    uid.BreastTomosynthesisImageStorage,
    uid.BreastProjectionXRayImageStorageForPresentation,
    uid.BreastProjectionXRayImageStorageForProcessing,
    uid.CTImageStorage,  # how it was sent before it had a class of its own
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
}
_TOMO = re.compile(r"(?<![A-Z])(?:TOMO|DBT(?![A-Z]))")
"""In ImageType and FrameType from value 3 on: TOMOSYNTHESIS, TOMO_PROJ and TOMO_SCOUT (PS3.3
C.8.21.6.1.1 and C.8.11.7.1.4), and what some say instead, such as TOMO SLICE; or in a series'
description."""

_OF_A_STACK = re.compile(r"SLICE|SLAB|PLANE|PROJ|RECON|VOLUME|STACK")
"""What a series' description says of a tomosynthesis only. By itself the word may be there because
the exam had one, besides the mammogram at hand."""

_IN_2D = re.compile(
    r"(?<!\d)2[ _-]?D(?![A-Z])"
    r"|(?<![A-Z])(?:[CS][ _-]?VIEW|V[ _-]?PREVIEW|SYNTHETIC|SYNTHESI[SZ]ED)"
)
"""The names of makers for a 2D image made of one: C-View, S-View, V-Preview, Insight 2D."""

_FRAME_TYPES = ("XRay3DFrameTypeSequence", "CTImageFrameTypeSequence")

_FILM = "RG"
_FILM_OR_PLATE = {_FILM, "CR", "DX"}
"""Modalities of machines that mammograms are made with too."""

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
    "RG": "a scanned film (RG)",
    "RTDOSE": "a radiation dose",
    "RTPLAN": "a radiation plan",
    "SEG": "a segmentation",
    "SR": "a written report (SR)",
    "US": "an ultrasound image",
    "XA": "an angiogram (XA)",
}
_FUNCTIONS = {
    "": "LINEAR",  # PS3.3 C.11.2.1.3
    "LINEAR": "LINEAR",
    "LINEAR_EXACT": "LINEAR_EXACT",
    "SIGMOID": "SIGMOID",
    "SAMPLED_SIGMOID": "SIGMOID",
}
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian


WINDOW, TABLE, PADDING = GREYS = ("window", "VOI lookup table", "padding")
"""What a header says of the greys, and a picture can be shown without."""


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
    view: str | None  # a key of view.VIEWS
    instance: str | None  # a hash of SOPInstanceUID: tells copies, and not where they are from
    patient: str | None  # a hash of PatientID; for memory only: all short ids can be tried
    secondary_capture: bool  # of a film or a screen, as in CBIS-DDSM: not made by the machine
    generated_2d: bool  # made of a tomosynthesis, not by an exposure of its own
    burned_in: bool | None  # BurnedInAnnotation: the pixels may name the patient; None: not said
    ignored: tuple[str, ...]  # of GREYS: what it says, and what is of no use

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
    dataset = _parsed(content, specific_tags=_READ_TAGS)
    _refuse_other_objects(dataset)
    _refuse_other_images(dataset, content)
    header = _header(dataset)
    _refuse_other_pixels(header)
    return header, dataset


def patient_of(content: Content) -> str | None:
    """`Header.patient` by itself.

    Raises:
        UnreadableDicom: as `read_header`.
    """
    dataset = _parsed(content, specific_tags=[Tag("PatientID")], stop_before_pixels=True)
    return _hash_of(dataset, "PatientID")


def _parsed(content: Content, **options: Any) -> pydicom.Dataset:
    content.seek(0)
    if content.read(132)[128:] != b"DICM":
        raise UnreadableDicom("it is not a DICOM file")
    # What is unpacked has no place in the content, so it cannot be left there.
    large = None if is_deflated(content) else _LARGE
    content.seek(0)
    try:
        return pydicom.dcmread(cast(BinaryIO, content), defer_size=large, **options)
    except PARSING:
        raise UnreadableDicom("its header is damaged") from None


def _refuse_other_objects(dataset: pydicom.Dataset) -> None:
    """What is no mammogram at all. The origin's data state neither modality nor class."""
    modality = _modality(dataset)
    if modality != "MG" and not _is_film_or_plate(dataset):
        what = _MODALITIES.get(modality, "something else")
        lacking = f", and {_lacking(dataset)}" if modality in _FILM_OR_PLATE else ""
        raise UnreadableDicom(f"its header says that it is {what}, not a mammogram (MG){lacking}")
    if _is_of_tomosynthesis(dataset):
        raise UnreadableDicom("it is of a tomosynthesis (a slice or a projection), not a mammogram")
    if (
        _sop_class(dataset) in _FOR_PROCESSING
        or text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    ):
        raise UnreadableDicom(
            "it is for processing, not for presentation: take the picture that the machine made of "
            "it for radiologists"
        )
    described = {"MASK", "CROPPED"} & set(words(dataset))
    if described and _is_secondary_capture(dataset):
        what = "the mask of a finding" if "MASK" in described else "a piece cut out of a film"
        raise UnreadableDicom(f"its series' description says that it is {what}, not a mammogram")


def _modality(dataset: pydicom.Dataset) -> str:
    """The origin's data state none."""
    found = first(value(dataset, "Modality"))
    if not isinstance(found, str | None):
        raise unreadable("Modality")
    return (found or "").strip().upper() or "MG"


def _is_film_or_plate(dataset: pydicom.Dataset) -> bool:
    """A mammogram by another machine than those of MG: a scanned film, a phosphor plate.

    Film says little of itself; a chest must not be let in for its view's name.
    """
    modality = _modality(dataset)
    if modality not in _FILM_OR_PLATE:
        return False
    breast, seen = of_a_breast(dataset), view(dataset) is not None
    if modality == _FILM:
        return breast is not False and (breast is True or seen)
    return breast is True and seen


def _lacking(dataset: pydicom.Dataset) -> str:
    """What keeps a film or plate from being taken for a mammogram."""
    breast, seen = of_a_breast(dataset), view(dataset) is not None
    part, position = "(BodyPartExamined)", "a view of mammography (ViewPosition)"
    advice = "; if it is a mammogram, mend its header"
    if breast is None and not seen:
        return f"names neither the breast {part} nor {position}{advice}"
    if breast is None:
        return f"does not name the breast {part}{advice}"
    if breast:
        return f"names the breast, but not {position}{advice}"
    return (
        f"names another body part than the breast {part}{'' if seen else f' and no{position[1:]}'}"
    )


def _is_secondary_capture(dataset: pydicom.Dataset) -> bool:
    return _sop_class(dataset) in _SECONDARY_CAPTURES or _is_film_or_plate(dataset)


def _sop_class(dataset: pydicom.Dataset) -> str:
    """None where it cannot be read, as the origin's data have none."""
    return str(first(value_if_readable(dataset, "SOPClassUID")) or "")


def _image_types(dataset: pydicom.Dataset) -> list[str]:
    """The values of ImageType and FrameType from the third on, which say what an image is; words
    with underscores between them, as DICOM has them."""
    frames = [_holder(dataset, "FrameType", macro) for macro in _FRAME_TYPES]
    said = []
    for found in (
        value_if_readable(dataset, "ImageType"),
        *(value_if_readable(frame, "FrameType") for frame in frames),
    ):
        if isinstance(found, Sequence) and not isinstance(found, str):
            said += [re.sub(r"[^A-Z0-9]+", "_", str(word).upper()) for word in found[2:]]
    return [word.strip("_") for word in said]


def _is_generated_2d(dataset: pydicom.Dataset) -> bool:
    """A picture that was calculated from a tomosynthesis, in whatever class (C.8.11.7.1.4)."""
    said = " ".join(_image_types(dataset))
    return "GENERATED_2D" in said.split() or bool(_TOMO.search(said) and _IN_2D.search(said))


def _is_of_tomosynthesis(dataset: pydicom.Dataset) -> bool:
    """A slice or a projection. A description is asked where the class is not that of mammograms, or
    if it says which part of a stack it is."""
    if _is_generated_2d(dataset):
        return False
    sop_class, description = _sop_class(dataset), text(dataset, "SeriesDescription")
    if sop_class in _TOMOSYNTHESIS or any(map(_TOMO.search, _image_types(dataset))):
        return True
    if not _TOMO.search(description) or _IN_2D.search(description):
        return False
    return sop_class not in _MAMMOGRAMS or bool(_OF_A_STACK.search(description))


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
    if header.secondary_capture and max(width, height) < SMALLEST_FILM:
        raise UnreadableDicom(
            f"it has {width} x {height} pixels, too few for a scanned film (the longer side has "
            f"{SMALLEST_FILM} at least): it is a piece of one, or made small"
        )
    if header.bits_allocated not in (8, 16) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise UnreadableDicom(
            f"its pixels have {header.bits_stored} bits in {header.bits_allocated}; "
            "only whole numbers of up to 16 bits can be read"
        )
    if not _stream_says(header.transfer_syntax) and header.high_bit not in (
        None,
        header.bits_stored - 1,
    ):
        raise UnreadableDicom(
            f"its header puts the highest of {header.bits_stored} bits in an odd place (HighBit "
            f"{header.high_bit}): what the pixels mean is not certain"
        )
    if not (0 < abs(header.slope) < MAX_VALUE and abs(header.intercept) < MAX_VALUE):
        raise UnreadableDicom("its rescale slope or intercept is not a usable number")


def _stream_says(transfer_syntax: str) -> bool:
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
    if pixel_data(dataset, content)[1] == 0:
        raise UnreadableDicom("its pixel data are empty")
    if not _transfer_syntax(dataset):
        raise UnreadableDicom("it does not say how its pixels are encoded (no transfer syntax)")
    missing = [
        name
        for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
        if value(dataset, name) is None
    ]
    if missing:
        raise UnreadableDicom(f"its header lacks {', '.join(missing)}")
    frames = whole(dataset, "NumberOfFrames") or 1
    if frames != 1:
        raise UnreadableDicom(f"it holds {frames} frames; a mammogram has one")
    if (number_if_readable(dataset, "SamplesPerPixel") or 1) != 1:
        raise UnreadableDicom("it is a colour image; a mammogram is grey")
    if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableDicom("it is neither MONOCHROME1 nor MONOCHROME2: not a grey image")
    if whole(dataset, "PixelRepresentation") not in (None, 0, 1):
        raise UnreadableDicom("its header does not say whether its pixels are signed")
    if value(dataset, "ModalityLUTSequence"):
        raise UnreadableDicom("its values need a modality lookup table, which is not supported")


def _transfer_syntax(dataset: pydicom.Dataset) -> str:
    return str(value(dataset.file_meta, "TransferSyntaxUID") or "")


def _header(dataset: pydicom.Dataset) -> Header:
    rescale = _holder(dataset, "RescaleSlope", "PixelValueTransformationSequence")
    slope, intercept = number(rescale, "RescaleSlope"), number(rescale, "RescaleIntercept")
    slope = 1.0 if slope is None else slope
    intercept = 0.0 if intercept is None else intercept
    syntax = _transfer_syntax(dataset)
    # A stream that says itself how many bits there are is believed, and the header is not needed.
    bits = number_if_readable if _stream_says(syntax) else whole
    bits_allocated = whole(dataset, "BitsAllocated") or 0
    high_bit = bits(dataset, "HighBit")
    voi = _holder(dataset, "WindowCenter", "FrameVOILUTSequence")
    tables = _holder(dataset, "VOILUTSequence", "FrameVOILUTSequence")
    window, voi_lut = _window(voi), read_voi_lut(tables, slope, intercept)
    padding = _padding(dataset)
    of_no_use = {
        WINDOW: window is None and (is_said(voi, "WindowCenter") or is_said(voi, "WindowWidth")),
        TABLE: voi_lut is None and is_said(tables, "VOILUTSequence"),
        PADDING: padding is None and is_said(dataset, "PixelPaddingValue"),
    }
    return Header(
        width=whole(dataset, "Columns") or 0,
        height=whole(dataset, "Rows") or 0,
        transfer_syntax=syntax,
        photometric=text(dataset, "PhotometricInterpretation"),
        bits_allocated=bits_allocated,
        bits_stored=int(bits(dataset, "BitsStored") or bits_allocated),
        high_bit=None if high_bit is None else int(high_bit),
        signed=whole(dataset, "PixelRepresentation") == 1,
        slope=slope,
        intercept=intercept,
        window=window,
        voi_lut=voi_lut,
        padding=padding,
        laterality=laterality(dataset),
        view=view(dataset),
        instance=_hash_of(dataset, "SOPInstanceUID"),
        patient=_hash_of(dataset, "PatientID"),
        secondary_capture=_is_secondary_capture(dataset),
        generated_2d=_is_generated_2d(dataset),
        burned_in={"YES": True, "NO": False}.get(text(dataset, "BurnedInAnnotation")),
        ignored=tuple(name for name, so in of_no_use.items() if so),
    )


def _holder(dataset: pydicom.Dataset, keyword: str, macro: str) -> pydicom.Dataset:
    """What holds an element: in enhanced objects, such as a 2D image in the class of tomosynthesis,
    it is not the header itself but what is said of the frame (PS3.3 C.7.6.16)."""
    if keyword not in dataset:
        for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            for group in items(dataset, groups)[:1]:
                for item in items(group, macro)[:1]:
                    if keyword in item:
                        return item
    return dataset


def _hash_of(dataset: pydicom.Dataset, keyword: str) -> str | None:
    """Tells one from another, and not what it is."""
    name = text(dataset, keyword)
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:32] if name else None


def _window(dataset: pydicom.Dataset) -> tuple[float, float, str] | None:
    center, width = (number_if_readable(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    written = re.sub(r"[^A-Z]+", "_", text(dataset, "VOILUTFunction"))
    function = _FUNCTIONS.get(written)
    if center is None or width is None or function is None:
        return None
    smallest = 1.0 if function == "LINEAR" else 1 / MAX_VALUE  # PS3.3 C.11.2.1.2, .3
    usable = abs(center) < MAX_VALUE and smallest <= width < MAX_VALUE
    return (center, width, function) if usable else None


def _padding(dataset: pydicom.Dataset) -> tuple[int, int] | None:
    """None also where it cannot be read: the image is all there without it."""
    found, limit = (
        number_if_readable(dataset, name)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    if found is None or not found.is_integer():
        return None
    ends = (found, limit if limit is not None and limit.is_integer() else found)
    return int(min(ends)), int(max(ends))
