"""An encoder for lossless JPEG, as DICOM's most common lossless syntax wants it.

Lossless JPEG (ITU-T T.81, process 14, selection value 1; DICOM transfer syntax
1.2.840.10008.1.2.4.70) predicts each pixel from its left neighbour and Huffman-codes the
difference. Every DICOM library reads it and few write it, so the sample data brings its own writer:
some hundred lines of numpy, without a loop over pixels.
"""

import heapq
import struct

import numpy as np
from numpy.typing import NDArray

MAX_PRECISION = 15
"""Up to 15 bits no Huffman code can outgrow JPEG's 16 bits, so none has to be shortened."""


def encode_lossless_jpeg(pixels: NDArray[np.uint16], precision: int = 12) -> bytes:
    """Encode one grey image as a lossless JPEG stream that any decoder restores exactly.

    Args:
        pixels: the image, (rows, columns), unsigned, each value below `2 ** precision`.
        precision: bits per pixel, 2 to 15.

    Returns:
        The stream, from the start-of-image to the end-of-image marker.

    Raises:
        ValueError: for an array that is not a two-dimensional image of that precision.
    """
    if not 2 <= precision <= MAX_PRECISION:
        raise ValueError(f"precision must be 2 to {MAX_PRECISION} bits, not {precision}")
    if pixels.ndim != 2 or pixels.size == 0 or max(pixels.shape) > 65535:
        raise ValueError(f"not an image that JPEG can hold: shape {pixels.shape}")
    if pixels.dtype.kind != "u" or int(pixels.max()) >> precision:
        raise ValueError(f"pixels must be unsigned and below 2 ** {precision}")

    differences = _differences(pixels.astype(np.int64), precision).ravel()
    categories = _BIT_LENGTHS[np.abs(differences)]
    lengths = _code_lengths(np.bincount(categories, minlength=precision + 1))
    symbols, codes = _canonical_codes(lengths)

    table = bytes([0]) + bytes(
        sum(lengths[symbol] == bits for symbol in symbols) for bits in range(1, 17)
    )
    rows, columns = pixels.shape
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC3, struct.pack(">BHHBBBB", precision, rows, columns, 1, 1, 0x11, 0)),
            _segment(0xC4, table + bytes(symbols)),
            _segment(0xDA, struct.pack(">BBBBBB", 1, 1, 0, 1, 0, 0)),
            _entropy_coded(differences, categories, lengths, codes),
            b"\xff\xd9",
        ]
    )


def _bit_lengths() -> NDArray[np.int64]:
    """How many bits each number from 0 to 2 ** 15 has: 0, 1, 2, 2, 3, 3, 3, 3, ..."""
    lengths = np.zeros(2**MAX_PRECISION + 1, np.int64)
    for bits in range(1, MAX_PRECISION + 2):
        lengths[2 ** (bits - 1) : 2**bits] = bits
    return lengths


_BIT_LENGTHS = _bit_lengths()


def _differences(pixels: NDArray[np.int64], precision: int) -> NDArray[np.int64]:
    """Each pixel less its prediction: the left neighbour, or the upper one in the first column."""
    differences = np.empty_like(pixels)
    differences[:, 1:] = pixels[:, 1:] - pixels[:, :-1]
    differences[1:, 0] = pixels[1:, 0] - pixels[:-1, 0]
    differences[0, 0] = pixels[0, 0] - 2 ** (precision - 1)
    return differences


def _code_lengths(counts: NDArray[np.int64]) -> dict[int, int]:
    """Huffman code length of each category that occurs; no code is all ones, as JPEG demands."""
    used = [(int(count), category) for category, count in enumerate(counts) if count]
    reserved = -1  # takes the all-ones code, which JPEG forbids
    heap: list[tuple[int, int, list[int]]] = [(count, c, [c]) for count, c in used]
    heap.append((0, reserved, [reserved]))
    heapq.heapify(heap)
    lengths = {category: 0 for _, category in used} | {reserved: 0}
    while len(heap) > 1:
        count_a, tie_a, members_a = heapq.heappop(heap)
        count_b, tie_b, members_b = heapq.heappop(heap)
        for member in members_a + members_b:
            lengths[member] += 1
        heapq.heappush(heap, (count_a + count_b, min(tie_a, tie_b), members_a + members_b))
    # The reserved entry has the lowest count, hence a longest code; canonical order puts it last.
    del lengths[reserved]
    return lengths


def _canonical_codes(lengths: dict[int, int]) -> tuple[list[int], dict[int, int]]:
    """Categories in the order of the table, and the code of each (ITU-T T.81, annex C)."""
    symbols = sorted(lengths, key=lambda category: (lengths[category], category))
    codes: dict[int, int] = {}
    code = 0
    previous = lengths[symbols[0]]
    for symbol in symbols:
        code <<= lengths[symbol] - previous
        previous = lengths[symbol]
        codes[symbol] = code
        code += 1
    return symbols, codes


def _entropy_coded(
    differences: NDArray[np.int64],
    categories: NDArray[np.int64],
    lengths: dict[int, int],
    codes: dict[int, int],
) -> bytes:
    """All codes in one row of bits, padded with ones, with a zero byte after each 0xFF."""
    length_of = np.zeros(MAX_PRECISION + 1, np.int64)
    code_of = np.zeros(MAX_PRECISION + 1, np.uint64)
    for category, length in lengths.items():
        length_of[category] = length
        code_of[category] = codes[category]
    # A negative difference is written as the difference less one, in the category's low bits.
    extra = (differences + np.where(differences < 0, (1 << categories) - 1, 0)).astype(np.uint64)
    words = (code_of[categories] << categories.astype(np.uint64)) | extra
    bits = length_of[categories] + categories  # at most 16 + 15, so two 32-bit cells hold any

    ends = np.cumsum(bits)
    starts = ends - bits
    total = int(ends[-1])
    cells = starts >> 5
    window = words << (64 - (starts & 31) - bits).astype(np.uint64)
    firsts = np.flatnonzero(np.diff(cells, prepend=-1))
    # Codes never overlap, so adding them is the same as or-ing them, and reduceat is fast.
    upper = np.add.reduceat(window >> np.uint64(32), firsts)
    lower = np.bitwise_or.reduceat(window & np.uint64(0xFFFFFFFF), firsts)
    stream = np.zeros(total // 32 + 2, np.uint64)
    stream[cells[firsts]] |= upper
    stream[cells[firsts] + 1] |= lower
    packed = np.frombuffer(stream.astype(">u4").tobytes(), np.uint8)[: (total + 7) // 8].copy()
    if total % 8:
        packed[-1] |= (1 << (8 - total % 8)) - 1
    repeats = np.where(packed == 0xFF, 2, 1)
    stuffed = np.repeat(packed, repeats)
    stuffed[(np.cumsum(repeats) - 1)[packed == 0xFF]] = 0
    return stuffed.tobytes()


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
