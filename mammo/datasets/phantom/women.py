"""The women of the phantom set: what is known of each before anything is drawn."""

from dataclasses import dataclass

from mammo.datasets.dicom_writer import TransferSyntax
from mammo.datasets.phantom.anatomy import Position, Shape

CANCER_KINDS = ("mass", "calcifications")
"""Lesions that are cancer."""

BENIGN_KINDS = (
    "benign_mass",
    "benign_calcification",
    "scattered_calcifications",
    "vascular_calcification",
    "lymph_node",
    "lookalike_mass",
    "lookalike_calcifications",
)
"""Lesions that are not; the look-alikes make a difficult negative case."""


@dataclass(frozen=True)
class MammographyUnit:
    """A mammography unit and the archive behind it. Pixel values are 12 bit stored values."""

    machine_id: int
    site_id: int
    manufacturer: str
    model: str
    syntax: TransferSyntax
    inverted: bool  # MONOCHROME1
    width_to_height: float
    scale: float  # long side relative to the largest machine's
    offset: int  # stored value of air
    gain: int  # stored values from air to white
    noise: float  # standard deviation in fat, in stored values
    sharp: bool  # no blur of the noise by the detector
    window_function: str
    extra_window: bool
    always_left: bool  # the chest wall is at the left edge, whichever the breast


MACHINES = (
    MammographyUnit(
        21, 1, "Phantom Imaging", "Aurora 2D", TransferSyntax.JPEG_2000, False,
        0.80, 0.95, 60, 3500, 6.0, False, "LINEAR", False, False,
    ),
    MammographyUnit(
        29, 1, "Phantom Imaging", "Aurora 2D Plus", TransferSyntax.JPEG_2000, True,
        0.75, 1.0, 150, 3100, 5.0, False, "SIGMOID", False, False,
    ),
    MammographyUnit(
        48, 2, "Sample Medical", "Mammoscope S", TransferSyntax.JPEG_LOSSLESS, False,
        0.78, 0.9, 30, 2900, 3.5, True, "LINEAR", True, False,
    ),
    MammographyUnit(
        49, 2, "Sample Medical", "Mammoscope C", TransferSyntax.RLE, True,
        0.75, 0.8, 95, 3900, 7.0, False, "LINEAR_EXACT", False, False,
    ),
    MammographyUnit(
        93, 2, "Trial Devices", "TD-M3", TransferSyntax.UNCOMPRESSED, False,
        0.78125, 0.8, 220, 3300, 7.0, True, "LINEAR", False, True,
    ),
)  # fmt: skip

DENSE_FRACTION = {"A": 0.07, "B": 0.22, "C": 0.45, "D": 0.68}
"""How much of the breast is glandular, by ACR density category."""


@dataclass(frozen=True)
class Island:
    """A hill of glandular tissue."""

    position: Position
    radius: float  # mm
    weight: float


@dataclass(frozen=True)
class Lesion:
    """One finding. `contrast` is relative to an average one; `seed` decides its details."""

    kind: str
    position: Position
    radius: float  # mm: half the diameter of a mass, half the length of a cluster
    contrast: float
    seed: int


@dataclass(frozen=True)
class Breast:
    """One breast, with what the radiologist said about it."""

    laterality: str
    shape: Shape
    islands: tuple[Island, ...]
    lesions: tuple[Lesion, ...]
    cancer: bool
    biopsy: bool
    invasive: bool
    birads: str  # "", "0", "1" or "2"
    difficult: bool
    image_ids: tuple[str, str]  # of CC and MLO


@dataclass(frozen=True)
class Woman:
    """One woman and her exam."""

    patient_id: str
    machine: MammographyUnit
    age: int
    density: str
    implant: bool
    seed: int  # decides the texture that her breasts share
    breasts: tuple[Breast, Breast]
