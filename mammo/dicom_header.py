"""What a DICOM header says about a mammogram, checked before a pixel is touched."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom

from mammo.errors import UserError

MAX_SIDE = 16384
"""Pixels. Film scanned at 25 micrometres has some 9,600; a header that says more is broken."""

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

_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian


class UnreadableDicom(UserError):  # noqa: N818 - it describes the file
    """A file that is no mammogram we can read.

    `reason` says why in words for a data manager. It quotes nothing that could identify a person:
    no path, no id, no name, no date.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason, name)
        self.reason = reason
        self.name = name

    def __str__(self) -> str:
        return f"{self.name or 'the DICOM file'}: {self.reason}"


@dataclass(frozen=True)
class Header:
    """The facts that decide how pixels become grey."""

    width: int  # pixels
    height: int
    transfer_syntax: str  # UID
    photometric: str  # MONOCHROME1 or MONOCHROME2
    bits_allocated: int  # 8 or 16
    bits_stored: int
    signed: bool
    slope: float  # of the modality rescale
    intercept: float
    window: tuple[float, float, str] | None  # centre, width, function: the first one
    padding: tuple[int, int] | None  # stored values that are no image, both ends included
    laterality: str | None  # L or R
    view: str | None  # one of VIEWS

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values in memory."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def read_header(content: bytes) -> tuple[Header, pydicom.Dataset]:
    """Parse a DICOM file's content and check that it describes one grey image we can decode.

    Raises:
        UnreadableDicom: it is no DICOM file, is cut short, or describes something else.
    """
    if content[128:132] != b"DICM":
        raise UnreadableDicom("it is not a DICOM file")
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        _refuse_other_images(dataset, content)
        header = _parse(dataset)
    except UnreadableDicom:
        raise
    except Exception:
        # pydicom meets a damaged header with a dozen kinds of error, and quotes from it.
        raise UnreadableDicom("its header is damaged") from None
    if not 0 < min(header.width, header.height) <= max(header.width, header.height) <= MAX_SIDE:
        raise UnreadableDicom(
            f"its header claims {header.width} x {header.height} pixels; "
            f"each side must have 1 to {MAX_SIDE}"
        )
    if header.bits_allocated not in (8, 16) or not 1 <= header.bits_stored <= header.bits_allocated:
        raise UnreadableDicom(
            f"its pixels have {header.bits_stored} bits in {header.bits_allocated}; "
            "only whole numbers of up to 16 bits can be read"
        )
    return header, dataset


def _refuse_other_images(dataset: pydicom.Dataset, content: bytes) -> None:
    if "PixelData" not in dataset:
        if any(name in dataset for name in ("FloatPixelData", "DoubleFloatPixelData")):
            raise UnreadableDicom("its pixels are floating-point numbers, which are not supported")
        if any(tag in content for tag in _PIXEL_DATA_TAGS):
            raise UnreadableDicom("the file is cut short: its pixel data have no end")
        raise UnreadableDicom("it holds no pixel data, or is cut short before them")
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


def _parse(dataset: pydicom.Dataset) -> Header:
    bits_allocated = int(dataset.BitsAllocated)
    return Header(
        width=int(dataset.Columns),
        height=int(dataset.Rows),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        photometric=str(dataset.PhotometricInterpretation),
        bits_allocated=bits_allocated,
        bits_stored=int(dataset.get("BitsStored") or bits_allocated),
        signed=bool(dataset.get("PixelRepresentation") or 0),
        slope=float(_first(dataset.get("RescaleSlope"), 1.0)),
        intercept=float(_first(dataset.get("RescaleIntercept"), 0.0)),
        window=_window(dataset),
        padding=_padding(dataset),
        laterality=_laterality(dataset),
        view=_view(dataset),
    )


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
    smallest = 1.0 if function == "LINEAR" else np.nextafter(0.0, 1.0)  # PS3.3 C.11.2.1.2, .3
    usable = np.isfinite(float(center)) and smallest <= float(width) < np.inf
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
    sides |= {word[0] for word in _words(dataset) if word[:1] in _SIDES and word[1:] in VIEWS}
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
    views |= {word[1:] for word in _words(dataset) if word[:1] in _SIDES and word[1:] in VIEWS}
    return views.pop() if len(views) == 1 else None


def _words(dataset: pydicom.Dataset) -> list[str]:
    return re.findall(r"[A-Z]+", str(dataset.get("SeriesDescription") or "").upper())
