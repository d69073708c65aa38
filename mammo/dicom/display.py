"""From stored values to the greys that a radiologist would see: PS3.3 C.11.1 and C.11.2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from mammo.dicom.values import read_integer, read_items, read_value_or_none

MAX_VALUE = 1e9
"""Windows and rescales beyond it are no such thing: no stored value comes near."""


@dataclass(frozen=True)
class VoiLut:
    """A table of greys for values (PS3.3 C.11.2.1.1)."""

    first: int  # the value that the first entry is for; those below it get the same
    grey: NDArray[np.float32]  # of each value from `first` on, 0 to 1


OVER = 1.05
"""How far entries may go beyond a number of bits: they are white, as 256 is white among 8 bits."""


def read_voi_lut(dataset: pydicom.Dataset, slope: float, intercept: float) -> VoiLut | None:
    """The first VOI lookup table of a header; None if it has none that is whole.

    Args:
        dataset: the header.
        slope: of the modality rescale, whose results the table is for,
        intercept: and this.
    """
    little_endian = dataset.original_encoding[1] is not False
    for item in read_items(dataset, "VOILUTSequence"):
        descriptor = _numbers(read_value_or_none(item, "LUTDescriptor"))
        if descriptor is None or len(descriptor) not in (2, 3):
            continue
        entries, first = int(descriptor[0]) % 2**16 or 2**16, int(descriptor[1])
        values = _entries(read_value_or_none(item, "LUTData"), entries, little_endian)
        if values is None or values.min() == values.max():
            continue
        negative = read_integer(dataset, "PixelRepresentation") == 1 or min(slope, intercept) < 0
        if negative and first >= 2**15:
            first -= 2**16  # read as unsigned where the VR was ambiguous
        return VoiLut(first, np.minimum(values / np.float32(2 ** _bits(int(values.max())) - 1), 1))
    return None


def _bits(highest: int) -> int:
    """How many bits the entries of a table have, by the entries alone.

    White is the highest value of the fewest bits that hold the highest entry. The descriptor is
    not asked: machines state 16 and fill in 10 or 12, or state 12 and fill in 11, or state 8 and
    fill in 12, and viewers do not trust it either (cornerstone3D: "bitsPerEntry" of the largest
    entry). White is not the highest entry itself: a table that ends below white on purpose, at 90 %
    of its range say, needs all its bits and stays as it is. One that ends below half of what it
    states is taken for one of fewer bits: no mammogram is meant to be shown half as bright as a
    screen can.
    """
    return next(bits for bits in range(1, 17) if highest <= OVER * (2**bits - 1))


def _entries(data: Any, entries: int, little_endian: bool) -> NDArray[np.float32] | None:
    """LUTData as numbers: a list or bytes, of 16 bits an entry or two entries in 16 bits."""
    if isinstance(data, bytes):
        words = np.frombuffer(data + bytes(len(data) % 2), f"{'<' if little_endian else '>'}u2")
    else:
        numbers = _numbers(data)
        if numbers is None:
            return None
        words = numbers.astype(np.uint16)
    if len(words) >= entries:
        return words[:entries].astype(np.float32)
    if len(words) == (entries + 1) // 2:  # the first is in the lower byte (PS3.3 C.11.2.1.1)
        return words.astype("<u2").view(np.uint8)[:entries].astype(np.float32)
    return None


def _numbers(data: Any) -> NDArray[np.int64] | None:
    """Values of 16 bits as numbers; None if they are not all such."""
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        return None
    if not all(isinstance(number, int) and -(2**15) <= number < 2**16 for number in data):
        return None
    return np.array(data, np.int64)


def apply_window(
    values: NDArray[np.float32], center: float, width: float, function: str
) -> NDArray[np.uint8]:
    """A VOI window by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # infinity is the right answer: black
            return to_grey(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR_EXACT":
        return to_grey((values - center) / width + 0.5)
    if width == 1:
        return to_grey((values > center - 0.5).astype(np.float32))
    return to_grey((values - (center - 0.5)) / (width - 1) + 0.5)


def apply_voi_lut(values: NDArray[np.float32], lut: VoiLut) -> NDArray[np.uint8]:
    """A VOI lookup table, between its entries by linear interpolation: areas were averaged."""
    positions = lut.first + np.arange(len(lut.grey), dtype=np.float32)
    return to_grey(np.interp(values, positions, lut.grey))


def to_grey(fraction: NDArray[np.floating]) -> NDArray[np.uint8]:
    """0..1 as 0..255; what lies beyond is black or white."""
    return np.asarray(np.rint(np.clip(fraction, 0, 1) * 255), np.uint8)
