"""What a JPEG stream says of itself before its first scan (ITU-T T.81, annex B).

Decoders are not asked: libjpeg-turbo crashes on a lossless stream with two frame headers, or
without Huffman tables, and none tells the size before it takes the memory.
"""

import struct
from dataclasses import dataclass
from typing import Any

from mammo.dicom.errors import DamagedStream

_NOT_A_FRAME_HEADER = {0xC4, 0xC8, 0xCC}  # markers among C0..CF: tables and an extension
_LOSSLESS, _HUFFMAN_TABLES, _SCAN, _RESTART_INTERVAL = 0xC3, 0xC4, 0xDA, 0xDD  # B.1.1.3
_JPEG_LS = 0xF7  # the same segment as a frame header, T.87, C.2.2


@dataclass(frozen=True)
class JpegHeading:
    """Of a stream up to its first scan."""

    precision: int  # bits
    height: int  # pixels
    width: int
    components: int
    lossless: bool  # Huffman-coded differences (process 14)
    selection: int  # of the predictor, 1 to 7, if lossless
    point_transform: int  # bits that were left out, if lossless
    restart_interval: int  # 0 for none
    huffman_table: tuple[bytes, bytes] | None  # codes of each length, 1 to 16, and their categories
    scan: int  # where its data begin


def read_jpeg_heading(stream: memoryview) -> JpegHeading:
    """Read up to the data of the first scan.

    Raises:
        DamagedStream: there is not one frame header, with tables where they are needed, or no
            scan; or a segment is cut short.
    """
    at, restart, frames = 2, 0, []
    tables: dict[int, tuple[bytes, bytes]] = {}
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == 0xFF:  # a byte that fills up (B.1.1.2)
            at += 1
            continue
        marker, (length,) = stream[at + 1], _unpack(">H", stream, at + 2)
        segment = bytes(stream[at + 4 : at + 2 + length])
        at += 2 + length
        if marker == _SCAN:
            break
        if (0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME_HEADER) or marker == _JPEG_LS:
            frames.append((marker, *_unpack(">BHHB", segment)))
        elif marker == _HUFFMAN_TABLES:
            tables |= _huffman_tables(segment)
        elif marker == _RESTART_INTERVAL:
            (restart,) = _unpack(">H", segment)
    else:
        raise DamagedStream("a JPEG stream without a scan")
    if len(frames) != 1:
        raise DamagedStream("a JPEG stream without its one frame header")
    ((kind, precision, height, width, components),) = frames
    if not (tables or kind == _JPEG_LS):
        raise DamagedStream("a JPEG stream without Huffman tables")
    # Of the scan's first component, which is all that a grey image has (B.2.3).
    count, _, table = _unpack(">BBB", segment)
    selection, _, approximation = _unpack(">BBB", segment, 1 + 2 * count)
    return JpegHeading(
        precision=precision,
        height=height,
        width=width,
        components=components,
        lossless=kind == _LOSSLESS,
        selection=selection,
        point_transform=approximation & 0xF,
        restart_interval=restart,
        huffman_table=tables.get(table >> 4),
        scan=at,
    )


def _unpack(layout: str, segment: bytes | memoryview, at: int = 0) -> tuple[Any, ...]:
    if len(segment) < at + struct.calcsize(layout):
        raise DamagedStream("a segment of a JPEG stream that is cut short")
    return struct.unpack_from(layout, segment, at)


def _huffman_tables(segment: bytes) -> dict[int, tuple[bytes, bytes]]:
    """The tables that a segment defines, by class and destination (B.2.4.2)."""
    tables, at = {}, 0
    while at + 17 <= len(segment):
        counts = segment[at + 1 : at + 17]
        tables[segment[at]] = counts, segment[at + 17 : at + 17 + sum(counts)]
        at += 17 + sum(counts)
    return tables
