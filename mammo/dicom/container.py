"""The file around a DICOM data set: how it is opened, how large it is and may become in memory."""

import errno
import io
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.values import PARSING, read_value_or_none

MAX_BYTES = 2**29
"""Of a file, packed or unpacked: twice the pixels of the largest image that is read."""

DAMAGED = "its pixel data are damaged or cut short"

_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OW", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"}


_META = re.compile(rb"\x02\0[\0\x01\x02\x03\x10\x12\x13\x16]\0(UL|OB|UI|SH|AE)")
"""The first element of group 2, which is always in explicit VR, little endian."""

_BARE = re.compile(rb"\x08\0..([A-Z][A-Z]|..\0\0)", re.DOTALL)
"""The first element of a data set, of group 8: with a VR, or with a length of four bytes."""

_OF_THE_DISK = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}

Content = io.BufferedIOBase
"""An open file; only what is asked for is read."""


@contextmanager
def open_content(source: Path | BinaryIO | bytes) -> Iterator[Content]:
    """Open a DICOM file, from a path, an open file or its content.

    Raises:
        UnreadableDicom: there is no such file, it cannot be opened or read, or it is too large.
    """
    with _open(source) as content:
        if measure_size(content) > MAX_BYTES:
            raise _too_large()
        try:
            yield _with_preamble(content)
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            raise UnreadableDicom(f"the file cannot be read ({error.strerror})") from None


def read_elements(content: Content, keywords: Sequence[str], **options: Any) -> pydicom.Dataset:
    """Parse a DICOM file's header, and of its elements only those that are asked for.

    Args:
        content: as `open_content` yields it.
        keywords: of the elements.
        options: of `pydicom.dcmread`.

    Raises:
        UnreadableDicom: it is no DICOM file, or its header is damaged.
    """
    content.seek(0)
    if content.read(132)[128:] != b"DICM":
        raise UnreadableDicom("it is not a DICOM file")
    content.seek(0)
    tags: list[Any] = [Tag(keyword) for keyword in keywords]
    try:
        return pydicom.dcmread(cast(BinaryIO, content), specific_tags=tags, **options)
    except PARSING:
        raise UnreadableDicom("its header is damaged") from None


def _with_preamble(content: Content) -> Content:
    """A file that begins with group 2, or with DICM, gets the preamble that it lacks (PS3.10 7.1).

    Raises:
        UnreadableDicom: it begins with the data set: nothing says how its pixels are encoded.
    """
    content.seek(0)
    start = content.read(132)
    if start[128:] == b"DICM":
        return content
    mark = b"" if start.startswith(b"DICM\x02\0") else b"DICM"
    if _META.match(start.removeprefix(b"DICM")):
        content.seek(0)
        return io.BytesIO(bytes(128) + mark + content.read())
    if _BARE.match(start):
        raise UnreadableDicom(
            "it is a DICOM data set without the head of a file (preamble and group 2), which would "
            "say how its pixels are encoded: export it again as a file"
        )
    return content


def _open(source: Path | BinaryIO | bytes) -> Content:
    if not isinstance(source, Path):
        return io.BytesIO(source if isinstance(source, bytes) else source.read(MAX_BYTES + 1))
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            # To open a named pipe would be to wait for ever.
            raise UnreadableDicom("the file cannot be opened: it is a folder or a device")
        return source.open("rb")
    except FileNotFoundError:
        raise UnreadableDicom("there is no such file") from None
    except OSError as error:
        raise UnreadableDicom(f"the file cannot be opened ({error.strerror})") from None


def measure_size(content: Content) -> int:
    """The size in bytes. The position moves to the end."""
    return content.seek(0, io.SEEK_END)


def find_pixel_data(dataset: pydicom.Dataset, content: Content) -> tuple[Content, int]:
    """Find the bytes of PixelData.

    Returns:
        A stream at the first byte, and the number of bytes: fewer than the header says, if the file
        is cut short.

    Raises:
        UnreadableDicom: the element has the VR of another one.
    """
    element = dataset.get_item("PixelData", keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and element.length:
        rest = measure_size(content) - element.value_tell
        content.seek(element.value_tell)
        return content, max(0, min(element.length, rest))
    value = read_value_or_none(dataset, "PixelData")
    if value is not None and not isinstance(value, bytes):  # the VR of another element
        raise UnreadableDicom(DAMAGED)
    return io.BytesIO(value or b""), len(value or b"")


def is_deflated(content: Content) -> bool:
    """Whether the data set is compressed as a whole (deflated).

    Raises:
        UnreadableDicom: it is damaged, or would become too large: a small file may be a bomb.
    """
    syntax, start = _transfer_syntax(content)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return False
    damaged = UnreadableDicom("the file is damaged or cut short: it cannot be unpacked")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    content.seek(start)
    try:
        unpacked = unpacker.decompress(content.read(), MAX_BYTES + 1)
    except zlib.error:
        raise damaged from None
    if len(unpacked) > MAX_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise damaged
    return True


def _transfer_syntax(content: Content) -> tuple[str, int]:
    """The transfer syntax, and where the data set begins: after the elements of group 2.

    pydicom cannot be asked: it unpacks a deflated file as soon as it has seen as much (PS3.10 7.1).
    """
    syntax, at = "", 132
    while True:
        content.seek(at)
        element = content.read(12)
        if len(element) < 12 or not element.startswith(b"\x02\x00"):
            return syntax, at
        long = element[4:6] in _LONG_VR
        head = 12 if long else 8
        (length,) = struct.unpack_from("<I" if long else "<H", element, head - (4 if long else 2))
        if element.startswith(b"\x02\x00\x10\x00"):
            content.seek(at + head)
            syntax = content.read(length).decode("latin-1").rstrip("\0 ")
        at += head + length


def _too_large() -> UnreadableDicom:
    return UnreadableDicom(f"the file is larger than {MAX_BYTES // 2**20} MiB; no mammogram is")
