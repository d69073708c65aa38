"""Single values of a DICOM header. Each is parsed when it is asked for, and may be damaged.

pydicom meets damage with a dozen kinds of error. They are caught in this module, round its own
code and nothing else: an error of ours stays one.
"""

import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from mammo.dicom.errors import UnreadableDicom

PARSING = (
    ArithmeticError,  # a decimal string that is no decimal number, or too large a one
    AssertionError,
    AttributeError,  # a sequence whose items are none; a name where a number is expected
    BytesLengthException,  # a number whose length is no multiple of its size
    EOFError,
    InvalidDicomError,
    LookupError,  # an unknown tag in an implicit VR, an unknown character set
    OSError,  # pydicom's word for a file that is cut short
    RuntimeError,  # an unknown VR (NotImplementedError), sequences within sequences without end
    TypeError,
    ValueError,  # a number that is none, text that is no text
    struct.error,
    zlib.error,
)
"""What pydicom raises on a damaged file, as its source shows and the fuzzer found.

There are so many because it parses without checks. MemoryError is not among them: it is handled by
itself.
"""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_LONGEST_UID = 64  # characters (PS3.5 9.1)


def is_uid(text: str | None) -> bool:
    """Whether it is a UID as the standard has them, and so a name of a file that leads nowhere."""
    return text is not None and len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def read_value(dataset: pydicom.Dataset, keyword: str) -> Any:
    """The value of an element; None if it is not there or is empty.

    Raises:
        UnreadableDicom: it cannot be read.
    """
    try:
        found = dataset[keyword].value if keyword in dataset else None
    except PARSING:
        raise unreadable_element(keyword) from None
    return None if found is None or found == "" else found


def read_value_or_none(dataset: pydicom.Dataset, keyword: str) -> Any:
    """As `read_value`, for what is not needed: None if it cannot be read."""
    try:
        return read_value(dataset, keyword)
    except UnreadableDicom:
        return None


def read_text(dataset: pydicom.Dataset, keyword: str) -> str:
    """The first value as text in capitals, without spaces around it; empty if there is none."""
    found = first_of(read_value_or_none(dataset, keyword))
    return "" if found is None or isinstance(found, bytes) else str(found).strip().upper()


def read_integer(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """The first value as a whole number; None if there is none.

    Raises:
        UnreadableDicom: it is no whole number.
    """
    found = read_number(dataset, keyword)
    if found is None:
        return None
    if not found.is_integer():  # nor is what is not finite
        raise unreadable_element(keyword)
    return int(found)


def read_number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first value as a number; None if there is none.

    Raises:
        UnreadableDicom: it is no number.
    """
    found = first_of(read_value(dataset, keyword))
    if found is None:
        return None
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        raise unreadable_element(keyword) from None


def read_number_or_none(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """As `read_number`, for what is not needed: None if it cannot be read."""
    try:
        return read_number(dataset, keyword)
    except UnreadableDicom:
        return None


def has_value(dataset: pydicom.Dataset, keyword: str) -> bool:
    """Whether an element has a value, be it readable or not."""
    try:
        found = read_value(dataset, keyword)
    except UnreadableDicom:
        return True
    return found is not None and not (isinstance(found, Sequence) and len(found) == 0)


def read_items(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """The items of a sequence; none if it is not there, or damaged."""
    found = read_value_or_none(dataset, keyword)
    if not isinstance(found, pydicom.Sequence):
        return []
    try:
        return list(found)
    except PARSING:
        return []


def find_holder(dataset: pydicom.Dataset, keyword: str, macro: str) -> pydicom.Dataset:
    """Find the data set that holds an element.

    In an enhanced object, such as a 2D image in the class of tomosynthesis, it is not the header
    itself but an item that describes the frame (PS3.3 C.7.6.16).

    Args:
        dataset: the header.
        keyword: of the element.
        macro: the sequence of the item that may hold it.
    """
    if keyword not in dataset:
        for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            for group in read_items(dataset, groups)[:1]:
                for item in read_items(group, macro)[:1]:
                    if keyword in item:
                        return item
    return dataset


def first_of(found: Any) -> Any:
    """The first of possibly several values; None if there is none."""
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = found[0] if len(found) else None
    return None if found is None or found == "" else found


def unreadable_element(keyword: str) -> UnreadableDicom:
    """Make the error for a value that is needed and cannot be read."""
    return UnreadableDicom(
        f"its header's {keyword} cannot be read, and without it the image cannot be understood"
    )
