"""Writes a mammogram as a DICOM file: pixels and a few facts in, a complete MG object out.

The object is a "Digital Mammography X-Ray Image - For Presentation", compressed as asked. Every
byte follows from the arguments: UIDs are hashes of the ids, and no clock or host name gets in.
"""

import hashlib
import io
from dataclasses import dataclass
from enum import StrEnum

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.sequence import Sequence
from pydicom.uid import UID

MAMMOGRAM_FOR_PRESENTATION = UID("1.2.840.10008.5.1.4.1.1.1.2")
IMPLEMENTATION_VERSION = "MAMMOFLOW 1"
RESOLUTION_LEVELS = 6
"""Of a JPEG 2000 image: the full size and up to five halvings, each decodable by itself."""


class TransferSyntax(StrEnum):
    """The encodings this writer knows, all lossless."""

    UNCOMPRESSED = "1.2.840.10008.1.2.1"  # explicit VR, little endian
    JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"  # process 14, selection value 1
    JPEG_2000 = "1.2.840.10008.1.2.4.90"  # lossless only
    RLE = "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Window:
    """What the file asks a viewer to show, in stored pixel values (PS3.3 C.11.2)."""

    center: float
    width: float
    function: str = "LINEAR"  # or LINEAR_EXACT or SIGMOID
    explanation: str = "NORMAL"


@dataclass(frozen=True)
class MammogramFacts:
    """What a file says about its image. All ids must be pseudonymous: they are written as given.

    `patient_orientation` is where the rows and the columns point, e.g. ("A", "R") when the nipple
    points right and the image's lower edge is the patient's right. `bits_stored` is 8 to 16.
    """

    patient_id: str
    image_id: str
    laterality: str  # L or R
    view: str  # CC or MLO
    patient_orientation: tuple[str, str]
    windows: tuple[Window, ...] = ()
    photometric: str = "MONOCHROME2"  # or MONOCHROME1: low values are bright
    bits_stored: int = 12
    pixel_spacing_mm: float | None = None
    patient_name: str = ""
    age_years: int | None = None
    study_date: str = ""  # YYYYMMDD
    instance_number: int = 1
    manufacturer: str = ""
    model: str = ""
    device_serial: str = ""
    institution: str = ""
    annotation_burned_in: bool = False  # that could identify the patient
    implant: bool = False
    compression_force_n: int | None = None
    breast_thickness_mm: int | None = None
    peak_kilovolts: int | None = None


def derive_uid(*parts: str) -> UID:
    """A valid UID under the 2.25 root that is a hash of `parts`."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def encode_mammogram(
    pixels: NDArray[np.uint16],
    about: MammogramFacts,
    syntax: TransferSyntax = TransferSyntax.JPEG_2000,
) -> bytes:
    """A complete DICOM file, preamble included.

    Args:
        pixels: the stored values, (rows, columns) uint16, below `2 ** about.bits_stored`.
        about: the header.
        syntax: how the pixels are compressed; every choice restores them exactly.

    Raises:
        ValueError: if the pixels are not a grey image of that depth, or the header says something
            that a mammogram cannot (a laterality, view, photometric interpretation or window
            function that DICOM does not know, a window of no width).
    """
    _check(pixels, about)
    dataset = _build_header(about, *pixels.shape)
    dataset.file_meta = _build_file_meta(UID(dataset.SOPInstanceUID), syntax)
    if syntax is TransferSyntax.UNCOMPRESSED:
        stored = pixels.astype(_choose_depth_type(about.bits_stored)).tobytes()
        dataset.PixelData = stored + b"\x00" * (len(stored) % 2)  # an element's length is even
        dataset["PixelData"].VR = "OW"
    else:
        dataset.PixelData = encapsulate([_compress(pixels, about.bits_stored, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _check(pixels: NDArray[np.uint16], about: MammogramFacts) -> None:
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype != np.uint16:
        raise ValueError(f"pixels must be a uint16 image, not {pixels.dtype} {pixels.shape}")
    if not 8 <= about.bits_stored <= 16 or int(pixels.max()) >> about.bits_stored:
        raise ValueError(f"pixels do not fit {about.bits_stored} bits (8 to 16 can be stored)")
    allowed = {
        "laterality": ("L", "R"),
        "view": tuple(_VIEWS),
        "photometric": ("MONOCHROME1", "MONOCHROME2"),
    }
    for name, values in allowed.items():
        if getattr(about, name) not in values:
            raise ValueError(f"{name} must be one of {values}, not {getattr(about, name)!r}")
    for window in about.windows:
        if window.function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or window.width <= 0:
            raise ValueError(f"not a window that DICOM knows: {window}")
    if len({window.function for window in about.windows}) > 1:
        raise ValueError("DICOM has one VOI LUT function for all windows of an image")


def _compress(pixels: NDArray[np.uint16], bits: int, syntax: TransferSyntax) -> bytes:
    stored = np.ascontiguousarray(pixels, _choose_depth_type(bits))
    if syntax is TransferSyntax.JPEG_LOSSLESS:
        return bytes(
            imagecodecs.jpeg_encode(stored, lossless=True, bitspersample=bits, predictor=1)
        )
    if syntax is TransferSyntax.JPEG_2000:
        return bytes(
            imagecodecs.jpeg2k_encode(
                stored,
                level=0,
                codecformat="j2k",
                bitspersample=bits,
                resolutions=RESOLUTION_LEVELS,
                reversible=True,
            )
        )
    rows, columns = stored.shape
    return get_encoder(UID(syntax)).encode(
        stored,
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8 * stored.itemsize,
        bits_stored=bits,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",
    )


def _choose_depth_type(bits: int) -> np.dtype[np.unsignedinteger]:
    """What a pixel is stored in: one byte if it fits, else two."""
    return np.dtype("<u2" if bits > 8 else "u1")


def _build_file_meta(instance: UID, syntax: TransferSyntax) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = MAMMOGRAM_FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = derive_uid("mammoflow", "implementation")
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


_VIEWS = {
    "CC": ("399162004", "cranio-caudal", "0"),
    "MLO": ("399368009", "medio-lateral oblique", "45"),
}


def _build_header(about: MammogramFacts, rows: int, columns: int) -> FileDataset:
    """Everything but the pixels."""
    dataset = FileDataset("", {}, preamble=b"\x00" * 128)
    study = (about.patient_id, about.study_date)
    # Patient and study
    dataset.PatientName = about.patient_name
    dataset.PatientID = about.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    if about.age_years is not None:
        dataset.PatientAge = f"{about.age_years:03d}Y"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Pseudonymous ids only"
    dataset.StudyInstanceUID = derive_uid("study", *study)
    dataset.StudyDate = about.study_date
    dataset.StudyTime = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = ""
    dataset.AccessionNumber = ""
    # Series and equipment
    dataset.Modality = "MG"
    dataset.SeriesInstanceUID = derive_uid(
        "series", *study, about.laterality, about.view, about.image_id
    )
    dataset.SeriesNumber = about.instance_number
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = about.manufacturer
    dataset.InstitutionName = about.institution
    dataset.ManufacturerModelName = about.model
    dataset.DeviceSerialNumber = about.device_serial
    # Image
    dataset.SOPClassUID = MAMMOGRAM_FOR_PRESENTATION
    dataset.SOPInstanceUID = derive_uid("image", about.patient_id, about.image_id)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.InstanceNumber = about.instance_number
    dataset.ContentDate = about.study_date
    dataset.ContentTime = ""
    dataset.AcquisitionContextSequence = Sequence()
    dataset.BurnedInAnnotation = "YES" if about.annotation_burned_in else "NO"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = about.photometric
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.BitsAllocated = 8 * _choose_depth_type(about.bits_stored).itemsize
    dataset.BitsStored = about.bits_stored
    dataset.HighBit = about.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if about.photometric == "MONOCHROME1" else -1
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    inverse = about.photometric == "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    if about.windows:
        dataset.WindowCenter = _one_or_all([f"{window.center:g}" for window in about.windows])
        dataset.WindowWidth = _one_or_all([f"{window.width:g}" for window in about.windows])
        dataset.WindowCenterWidthExplanation = _one_or_all(
            [window.explanation for window in about.windows]
        )
        dataset.VOILUTFunction = about.windows[0].function
    _add_mammography(dataset, about)
    return dataset


def _add_mammography(dataset: Dataset, about: MammogramFacts) -> None:
    """The attributes of the mammography, detector and X-ray acquisition modules."""
    code, meaning, angle = _VIEWS[about.view]
    view = _build_code(code, "SCT", meaning)
    view.ViewModifierCodeSequence = Sequence()
    dataset.ViewCodeSequence = Sequence([view])
    dataset.AnatomicRegionSequence = Sequence([_build_code("76752008", "SCT", "Breast")])
    dataset.ViewPosition = about.view
    dataset.ImageLaterality = about.laterality
    dataset.PatientOrientation = list(about.patient_orientation)
    dataset.OrganExposed = "BREAST"
    dataset.PositionerType = "MAMMOGRAPHIC"
    dataset.PositionerPrimaryAngle = angle
    dataset.BreastImplantPresent = "YES" if about.implant else "NO"
    dataset.PartialView = "NO"
    dataset.DetectorType = "DIRECT"
    if about.pixel_spacing_mm is not None:
        spacing = f"{about.pixel_spacing_mm:g}"
        dataset.ImagerPixelSpacing = [spacing, spacing]
        dataset.PixelSpacing = [spacing, spacing]
    if about.compression_force_n is not None:
        dataset.CompressionForce = str(about.compression_force_n)
    if about.breast_thickness_mm is not None:
        dataset.BodyPartThickness = str(about.breast_thickness_mm)
    if about.peak_kilovolts is not None:
        dataset.KVP = str(about.peak_kilovolts)


def _build_code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
