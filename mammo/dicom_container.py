"""The file around a DICOM data set: how it is opened, how large it is and may become in memory."""

import io
import mmap
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import uid

from mammo.dicom_error import UnreadableDicom

MAX_BYTES = 2**29
"""Of a file, packed or unpacked: twice the pixels of the largest image that is read."""

_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OW", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"}


_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""All pages at once, where the system can: cheaper than one by one, and all are looked at."""


class Mapped(mmap.mmap):
    """A file mapped into memory, which may be read past its end like any other stream."""

    def seek(self, position: int, whence: Any = io.SEEK_SET) -> None:
        """As any stream does it; but to its end, if the position is past it."""
        super().seek(min(position, len(self)) if whence == io.SEEK_SET else position, whence)


Content = bytes | Mapped
"""All of a file: in memory, or mapped into it, so that nothing is copied that nobody looks at."""


def content_of(source: Path | BinaryIO | bytes) -> Content:
    """All of a file. One that has a path is mapped: it must not be cut short meanwhile.

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
        if status.st_size == 0:
            return b""  # there is nothing to map
        with source.open("rb") as file:
            return Mapped(file.fileno(), 0, flags=_FLAGS, prot=mmap.PROT_READ)
    except FileNotFoundError:
        raise UnreadableDicom("there is no such file") from None
    except OSError as error:
        raise UnreadableDicom(f"the file cannot be opened ({error.strerror})") from None


def is_deflated(content: Content) -> bool:
    """Whether the data set is packed, once it was seen that it does not become too large.

    Raises:
        UnreadableDicom: it is too large, or would be once unpacked: a small file may be a bomb.
    """
    if len(content) > MAX_BYTES:
        raise _too_large()
    syntax, start = _transfer_syntax(content)
    if syntax != uid.DeflatedExplicitVRLittleEndian:
        return False
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
    return True


def _transfer_syntax(content: Content) -> tuple[str, int]:
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
