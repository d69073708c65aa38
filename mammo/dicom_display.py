"""From stored values to the greys that a radiologist would see: PS3.3 C.11.1 and C.11.2."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

MAX_VALUE = 1e9
"""Windows and rescales beyond it are no such thing: no stored value comes near."""


@dataclass(frozen=True)
class VoiLut:
    """A table of greys for values (PS3.3 C.11.2.1.1)."""

    first: int  # the value that the first entry is for; those below it get the same
    grey: NDArray[np.float32]  # of each value from `first` on, 0 to 1


def read_voi_lut(dataset: pydicom.Dataset) -> VoiLut | None:
    """The first VOI lookup table of a header; None if it has none that is whole."""
    for item in dataset.get("VOILUTSequence") or []:
        descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
        if descriptor is None or len(descriptor) != 3 or not data:
            continue
        entries, first, bits = (int(value) for value in descriptor)
        entries = entries or 2**16
        if dataset.get("PixelRepresentation") and first >= 2**15:
            first -= 2**16  # read as unsigned where the VR was ambiguous
        values = _entries(data, entries, dataset.original_encoding[1])
        if values is None or not 8 <= bits <= 16 or values.min() == values.max():
            continue
        return VoiLut(first, np.minimum(values / np.float32(2**bits - 1), 1))
    return None


def _entries(data: Any, entries: int, little_endian: bool | None) -> NDArray[np.float32] | None:
    """LUTData as numbers: a list, or bytes of 8 or 16 bits an entry."""
    if isinstance(data, bytes):
        itemsize = len(data) // entries
        if itemsize not in (1, 2):
            return None
        kind = f"{'<' if little_endian else '>'}u{itemsize}"
        return np.frombuffer(data, kind, entries).astype(np.float32)
    return np.asarray(data, np.float32) if len(data) == entries else None


def windowed(
    values: NDArray[np.float32], center: float, width: float, function: str
) -> NDArray[np.uint8]:
    """A VOI window by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # infinity is the right answer: black
            return grey(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR_EXACT":
        return grey((values - center) / width + 0.5)
    if width == 1:
        return grey((values > center - 0.5).astype(np.float32))
    return grey((values - (center - 0.5)) / (width - 1) + 0.5)


def looked_up(values: NDArray[np.float32], lut: VoiLut) -> NDArray[np.uint8]:
    """A VOI lookup table, between its entries by linear interpolation: areas were averaged."""
    places = lut.first + np.arange(len(lut.grey), dtype=np.float32)
    return grey(np.interp(values, places, lut.grey))


def grey(fraction: NDArray[np.floating]) -> NDArray[np.uint8]:
    """0..1 as 0..255; what lies beyond is black or white."""
    return np.rint(np.clip(fraction, 0, 1) * 255).astype(np.uint8)
