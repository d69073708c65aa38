"""The file around a DICOM data set: how it is opened, how large it is and may become in memory."""

import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom import uid

from mammo.dicom_error import UnreadableDicom

MAX_BYTES = 2**29
"""Of a file, packed or unpacked: twice the pixels of the largest image that is read."""

_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OW", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"}


def content_of(source: Path | BinaryIO | bytes) -> bytes:
    """All of a file.

    Raises:
        UnreadableDicom: there is none, it cannot be opened, or it is too large.
    """
    if isinstance(source, bytes):
        return source
    if not isinstance(source, Path):
        return source.read(MAX_BYTES + 1)
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            # To open a named pipe would be to wait for ever.
            raise UnreadableDicom("the file cannot be opened: it is a folder or a device")
        if status.st_size > MAX_BYTES:
            raise _too_large()
        return source.read_bytes()
    except FileNotFoundError:
        raise UnreadableDicom("there is no such file") from None
    except OSError as error:
        raise UnreadableDicom(f"the file cannot be opened ({error.strerror})") from None


def checked_size(content: bytes) -> None:
    """Refuse what is too large, or would be once unpacked: a small deflated file may be a bomb.

    Raises:
        UnreadableDicom: it is.
    """
    if len(content) > MAX_BYTES:
        raise _too_large()
    syntax, start = _transfer_syntax(content)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return
    damaged = UnreadableDicom("the file is damaged or cut short: it cannot be unpacked")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(content[start:], MAX_BYTES + 1)
    except zlib.error:
        raise damaged from None
    if len(unpacked) > MAX_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise damaged


def _transfer_syntax(content: bytes) -> tuple[str, int]:
    """The transfer syntax, and where the data set begins: after the elements of group 2.

    Read here because pydicom unpacks a deflated file as soon as it has seen as much (PS3.10 7.1).
    """
    syntax, at = "", 132
    while content[at : at + 2] == b"\x02\x00" and len(content) >= at + 12:
        long = content[at + 4 : at + 6] in _LONG_VR
        head = 12 if long else 8
        (length,) = struct.unpack_from("<I" if long else "<H", content, at + (8 if long else 6))
        if content[at : at + 4] == b"\x02\x00\x10\x00":
            syntax = content[at + head : at + head + length].decode("latin-1").rstrip("\0 ")
        at += head + length
    return syntax, at


def _too_large() -> UnreadableDicom:
    return UnreadableDicom(f"the file is larger than {MAX_BYTES // 2**20} MiB; no mammogram is")
