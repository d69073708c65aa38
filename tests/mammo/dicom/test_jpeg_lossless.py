"""Our decoder of lossless JPEG against libjpeg-turbo, and against streams that are damaged."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from mammo.dicom import jpeg as dicom_jpeg
from mammo.dicom import jpeg_lossless
from mammo.dicom.jpeg_header import read_jpeg_heading
from mammo.dicom.jpeg_lossless import lossless_rows
from mammo.dicom.reader import UnreadableDicom, read_mammogram
from tests.support import dicoms
from tests.support.dicoms import half_breast, lossless_frame

images = st.tuples(
    st.integers(1, 40), st.integers(1, 70), st.integers(2, 16), st.integers(0, 2**32 - 1)
)
"""Height, width, bits, seed."""


def noise(height: int, width: int, bits: int, seed: int) -> np.ndarray:
    """Flat, smooth and rough parts, so that codes are short and long."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 1 << bits, (height, width))
    smooth = (np.arange(width) + rng.integers(0, 3, (height, width))) % (1 << bits)
    parts = rng.integers(0, 3, (height, (width + 6) // 7)).repeat(7, axis=1)[:, :width]
    return np.choose(parts, [np.zeros_like(rough), smooth, rough]).astype(np.uint16)


def decoded(frame: bytes, band: int | None = None) -> np.ndarray:
    """The whole image, `band` rows at a time; fails the test if it is left to others."""
    heading = read_jpeg_heading(memoryview(frame))
    rows = lossless_rows(memoryview(frame), heading)
    assert rows is not None
    band = band or heading.height
    tops = range(0, heading.height, band)
    return np.vstack([rows(top, min(top + band, heading.height)).copy() for top in tops])


@settings(max_examples=200)
@given(images, st.integers(1, 41), st.integers(0, 300))
def test_any_image_is_the_same_in_any_bands(
    image: tuple[int, int, int, int], band: int, chunk: int
) -> None:
    pixels = noise(*image)
    frame = lossless_frame(pixels, image[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg_lossless, "_CHUNK", chunk)
        np.testing.assert_array_equal(decoded(frame, band), pixels)
    np.testing.assert_array_equal(decoded(frame), imagecodecs.jpeg_decode(frame))


def test_more_rows_than_are_made_ready_at_a_time_are_decoded() -> None:
    pixels = noise(900, 700, 12, 3)
    frame = lossless_frame(pixels, 12)
    assert len(frame) > 4 * 2**16
    np.testing.assert_array_equal(decoded(frame, 64), pixels)


def test_the_largest_difference_of_16_bits_is_decoded() -> None:
    """32768 is a category of its own, without bits of its own (ITU-T T.81, H.1.2.2)."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (50, 31)).astype(np.uint16)
    pixels[7, 2:9] = [5, 32773, 5, 32773, 5, 0, 32768]
    frame = lossless_frame(pixels, 16)
    np.testing.assert_array_equal(decoded(frame), pixels)


@pytest.mark.parametrize("selection", range(2, 8))
def test_other_predictions_are_left_to_others(selection: int) -> None:
    frame = bytes(
        imagecodecs.jpeg_encode(half_breast(), lossless=True, bitspersample=12, predictor=selection)
    )
    heading = read_jpeg_heading(memoryview(frame))
    assert heading.selection == selection
    assert lossless_rows(memoryview(frame), heading) is None


def parts(frame: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """What libjpeg-turbo writes: frame header, table, scan header, and all that follows."""
    frame = frame[frame.index(b"\xff\xc3") :]  # without its JFIF segment
    table, header = frame.index(b"\xff\xc4"), frame.index(b"\xff\xda")
    scan = read_jpeg_heading(memoryview(b"\xff\xd8" + frame)).scan - 2
    return frame[:table], frame[table:header], frame[header:scan], frame[scan:]


def moved(table: bytes, number: int) -> bytes:
    return table[:4] + bytes([number]) + table[5:]


def joined(*tables: bytes) -> bytes:
    inside = b"".join(table[4:] for table in tables)
    return b"\xff\xc4" + struct.pack(">H", len(inside) + 2) + inside


OTHER = b"\xff\xc4" + struct.pack(">H", 22) + bytes([0, 0, 3, *[0] * 14, 0, 1, 2])
"""A table as it may be, that no test uses."""
HEADINGS = {
    "as it is": lambda head, table, scan: head + table + scan,
    "the table first": lambda head, table, scan: table + head + scan,
    "fill bytes": lambda head, table, scan: b"\xff\xff".join([b"", head, table, scan]),
    "comments": lambda head, table, scan: (
        b"\xff\xe0\0\7JFIF\0\xff\xfe\0\4\xff\xda" + head + table + b"\xff\xfe\0\2" + scan
    ),
    "no restarts": lambda head, table, scan: head + b"\xff\xdd\0\4\0\0" + table + scan,
    "replaced": lambda head, table, scan: head + OTHER + table + scan,
    "another number": lambda head, table, scan: (
        head + OTHER + moved(table, 1) + scan[:6] + b"\x10" + scan[7:]
    ),
    "two in one": lambda head, table, scan: head + joined(moved(OTHER, 1), table) + scan,
    "one for AC": lambda head, table, scan: head + table + moved(OTHER, 0x10) + scan,
    "component 0": lambda head, table, scan: (
        head[:10] + b"\0" + head[11:] + table + scan[:5] + b"\0" + scan[6:]
    ),
}


@pytest.mark.parametrize("heading", HEADINGS.values(), ids=HEADINGS)
@pytest.mark.parametrize("after", [b"", b"\0", b"\0" * 12])
def test_what_other_encoders_write_is_decoded(
    heading: Callable[[bytes, bytes, bytes], bytes], after: bytes
) -> None:
    """All of it is as ITU-T T.81, annex B, allows it; padding comes from DICOM's even lengths."""
    pixels = noise(20, 30, 12, 1)
    head, table, scan, rest = parts(lossless_frame(pixels, 12))
    frame = b"\xff\xd8" + heading(head, table, scan) + rest + after
    np.testing.assert_array_equal(decoded(frame), pixels)
    np.testing.assert_array_equal(imagecodecs.jpeg_decode(frame), pixels)
    content = dicoms.encapsulated(pixels, uid.JPEGLosslessSV1, frame)
    expected = read_mammogram(dicoms.plain(pixels), 30).pixels
    np.testing.assert_array_equal(read_mammogram(content, 30).pixels, expected)


def with_restarts(frame: bytes) -> bytes:
    return frame[:2] + b"\xff\xdd\0\4\0\x20" + frame[2:]


def with_point_transform(frame: bytes) -> bytes:
    scan = read_jpeg_heading(memoryview(frame)).scan
    return frame[: scan - 1] + b"\2" + frame[scan:]


def with_a_place_without_table(frame: bytes) -> bytes:
    scan = read_jpeg_heading(memoryview(frame)).scan
    return frame[: scan - 4] + b"\x30" + frame[scan - 3 :]


def with_too_many_codes(frame: bytes) -> bytes:
    """As many codes, but three of them have one bit: one more than there can be."""
    at = frame.index(b"\xff\xc4") + 5
    total = sum(frame[at : at + 16])
    return frame[:at] + bytes([3, total - 3, *[0] * 14]) + frame[at + 16 :]


def with_an_unknown_category(frame: bytes) -> bytes:
    at = frame.index(b"\xff\xc4") + 5 + 16
    return frame[:at] + b"\x11" + frame[at + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        with_restarts,
        with_point_transform,
        with_a_place_without_table,
        with_too_many_codes,
        with_an_unknown_category,
    ],
)
def test_other_kinds_are_left_to_others(change: Callable[[bytes], bytes]) -> None:
    frame = change(lossless_frame(noise(20, 30, 12, 1), 12))
    assert lossless_rows(memoryview(frame), read_jpeg_heading(memoryview(frame))) is None


@settings(max_examples=200)
@given(images, st.floats(0, 1))
def test_a_stream_cut_short_is_damaged(image: tuple[int, int, int, int], share: float) -> None:
    pixels = noise(*image)
    frame = lossless_frame(pixels, image[2])
    scan = read_jpeg_heading(memoryview(frame)).scan
    short = frame[: scan + int(share * (len(frame) - 2 - scan))]
    if len(short) == len(frame) - 2:
        np.testing.assert_array_equal(decoded(short), pixels)
    else:
        with pytest.raises(ValueError, match="damaged"):
            decoded(short)


def test_a_stream_that_lost_or_changed_a_block_is_damaged() -> None:
    """libjpeg-turbo decodes each of them, to another picture."""
    pixels = noise(200, 150, 12, 5)
    frame = lossless_frame(pixels, 12)
    scan = read_jpeg_heading(memoryview(frame)).scan
    rng = np.random.default_rng(6)
    for number in range(60):
        at, end = int(rng.integers(scan, len(frame) - 600)), b"" if number % 2 else bytes(512)
        damaged = frame[:at] + end + frame[at + 512 :]
        assert (np.asarray(imagecodecs.jpeg_decode(damaged)) != pixels).any()
        with pytest.raises(ValueError, match="lossless JPEG stream"):
            decoded(damaged)


@pytest.mark.parametrize("extra", [b"\0", b"\xff\0", b"\0" * 8])
def test_a_few_bytes_after_the_last_value_are_no_damage(extra: bytes) -> None:
    """A few encoders align the stream."""
    pixels = noise(20, 30, 12, 1)
    frame = lossless_frame(pixels, 12)
    np.testing.assert_array_equal(decoded(frame[:-2] + extra + frame[-2:]), pixels)


@pytest.mark.parametrize("marker", [0xD0, 0xD9, 0xFF])
def test_a_marker_in_the_middle_is_damage(marker: int) -> None:
    frame = lossless_frame(noise(40, 40, 12, 2), 12)
    middle = len(frame) // 2
    with pytest.raises(ValueError, match="damaged"):
        decoded(frame[:middle] + bytes([0xFF, marker]) + frame[middle + 2 :])


def test_no_index_leaves_its_array() -> None:
    """The compiled loop does not look, so the same loop is run with looking."""
    script = "from tests.mammo.dicom.test_jpeg_lossless import decode_damaged; decode_damaged(3000)"
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    right, refused = map(int, told)
    assert right > 100
    assert refused > 1000


def decode_damaged(count: int) -> None:
    """Decode streams with changed bytes, and print how many were decoded and how many refused."""
    rng = np.random.default_rng(11)
    right = refused = 0
    for number in range(count):
        height, width, bits = (int(rng.integers(*span)) for span in ((1, 40), (1, 200), (2, 16)))
        frame = bytearray(lossless_frame(noise(height, width, bits, number), bits))
        for _ in range(rng.integers(1, 6)):
            frame[rng.integers(2, len(frame))] = rng.choice([0, 255, int(rng.integers(256))])
        frame = frame[: rng.integers(40, len(frame))] if number % 3 == 0 else frame
        stream = memoryview(bytes(frame))
        jpeg_lossless._CHUNK = int(rng.integers(0, 300))  # so that it is made ready in many parts
        try:
            heading = read_jpeg_heading(stream)
            rows = lossless_rows(stream, heading)
            if rows is not None and heading.height * heading.width < 10**6:
                rows(0, heading.height)
                right += 1
        except (ValueError, struct.error):
            refused += 1
    print(right, refused)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("long_side", [1000, 150])
def test_a_film_shows_the_same_picture_by_either_decoder(
    monkeypatch: pytest.MonkeyPatch, bits: int, long_side: int
) -> None:
    pixels: np.ndarray = half_breast() << bits - 12 if bits > 12 else half_breast() >> 12 - bits
    pixels = pixels.astype(np.uint8) if bits == 8 else pixels
    frame = lossless_frame(pixels, bits)
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    content = dicoms.encapsulated(pixels, uid.JPEGLosslessSV1, frame, **tags)
    with monkeypatch.context() as patch:
        patch.setattr(dicom_jpeg, "_decode_lossless_jpeg", lambda *_: None)
        by_others = read_mammogram(content, long_side).pixels
    monkeypatch.delattr(imagecodecs, "jpeg_decode")
    np.testing.assert_array_equal(read_mammogram(content, long_side).pixels, by_others)
    cut = dicoms.encapsulated(pixels, uid.JPEGLosslessSV1, frame[:3000] + frame[-2:], **tags)
    with pytest.raises(UnreadableDicom, match="damaged or cut short"):
        read_mammogram(cut, long_side)
