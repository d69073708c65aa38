"""Which kind of DICOM object a file holds: a mammogram, or something that only resembles one.

Many objects lie beside the mammograms of a collection: slices of a tomosynthesis, images for
processing, masks of findings, other X-rays. Each is refused with a reason that names it.
"""

import re
from collections.abc import Sequence

import pydicom
from pydicom import uid

from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.values import (
    find_holder,
    first_of,
    read_text,
    read_value,
    read_value_or_none,
    unreadable_element,
)
from mammo.dicom.view import read_view, shows_breast, split_description

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
C.8.21.6.1.1 and C.8.11.7.1.4), and what a few machines say instead, such as TOMO SLICE; or in a
series' description."""

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


def refuse_other_objects(dataset: pydicom.Dataset) -> None:
    """Refuse what is no mammogram. The origin's data state neither modality nor class.

    Raises:
        UnreadableDicom: it is another kind of object.
    """
    modality = _modality(dataset)
    if modality != "MG" and not _is_film_or_plate(dataset):
        what = _MODALITIES.get(modality, "something else")
        lacking = f", and {_name_lacking(dataset)}" if modality in _FILM_OR_PLATE else ""
        raise UnreadableDicom(f"its header says that it is {what}, not a mammogram (MG){lacking}")
    if _is_of_tomosynthesis(dataset):
        raise UnreadableDicom("it is of a tomosynthesis (a slice or a projection), not a mammogram")
    if (
        _sop_class(dataset) in _FOR_PROCESSING
        or read_text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    ):
        raise UnreadableDicom(
            "it is for processing, not for presentation: take the picture that the machine made of "
            "it for radiologists"
        )
    described = {"MASK", "CROPPED"} & set(split_description(dataset))
    if described and is_secondary_capture(dataset):
        what = "the mask of a finding" if "MASK" in described else "a piece cut out of a film"
        raise UnreadableDicom(f"its series' description says that it is {what}, not a mammogram")


def _modality(dataset: pydicom.Dataset) -> str:
    """The modality; MG where there is none, as in the origin's data."""
    found = first_of(read_value(dataset, "Modality"))
    if not isinstance(found, str | None):
        raise unreadable_element("Modality")
    return (found or "").strip().upper() or "MG"


def _is_film_or_plate(dataset: pydicom.Dataset) -> bool:
    """A mammogram by another machine than those of MG: a scanned film, a phosphor plate.

    Film says little of itself; a chest must not be let in for its view's name.
    """
    modality = _modality(dataset)
    if modality not in _FILM_OR_PLATE:
        return False
    breast, seen = shows_breast(dataset), read_view(dataset) is not None
    if modality == _FILM:
        return breast is not False and (breast is True or seen)
    return breast is True and seen


def _name_lacking(dataset: pydicom.Dataset) -> str:
    """What keeps a film or plate from being taken for a mammogram."""
    breast, seen = shows_breast(dataset), read_view(dataset) is not None
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


def is_secondary_capture(dataset: pydicom.Dataset) -> bool:
    """Whether the image was not made by a mammography machine: a scanned film, a plate."""
    return _sop_class(dataset) in _SECONDARY_CAPTURES or _is_film_or_plate(dataset)


def _sop_class(dataset: pydicom.Dataset) -> str:
    """The class; empty where it cannot be read, since the origin's data have none."""
    return str(first_of(read_value_or_none(dataset, "SOPClassUID")) or "")


def _image_types(dataset: pydicom.Dataset) -> list[str]:
    """The values of ImageType and FrameType from the third on, which say what an image is.

    Words are joined by underscores, as in DICOM's own terms.
    """
    frames = [find_holder(dataset, "FrameType", macro) for macro in _FRAME_TYPES]
    said = []
    for found in (
        read_value_or_none(dataset, "ImageType"),
        *(read_value_or_none(frame, "FrameType") for frame in frames),
    ):
        if isinstance(found, Sequence) and not isinstance(found, str):
            said += [re.sub(r"[^A-Z0-9]+", "_", str(word).upper()) for word in found[2:]]
    return [word.strip("_") for word in said]


def is_generated_2d(dataset: pydicom.Dataset) -> bool:
    """A picture that was calculated from a tomosynthesis, in whatever class (C.8.11.7.1.4)."""
    said = " ".join(_image_types(dataset))
    return "GENERATED_2D" in said.split() or bool(_TOMO.search(said) and _IN_2D.search(said))


def _is_of_tomosynthesis(dataset: pydicom.Dataset) -> bool:
    """Whether it is a slice or a projection.

    The series' description decides only where the class is not that of mammograms, or where the
    description says which part of a stack it is.
    """
    if is_generated_2d(dataset):
        return False
    sop_class, description = _sop_class(dataset), read_text(dataset, "SeriesDescription")
    if sop_class in _TOMOSYNTHESIS or any(map(_TOMO.search, _image_types(dataset))):
        return True
    if not _TOMO.search(description) or _IN_2D.search(description):
        return False
    return sop_class not in _MAMMOGRAMS or bool(_OF_A_STACK.search(description))
