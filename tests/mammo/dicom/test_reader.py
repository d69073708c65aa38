"""Reading mammograms: every syntax, every window, and every way in which a file can be wrong."""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from mammo.dicom import reader
from mammo.dicom.reader import UnreadableDicom, read_mammogram
from tests.support import dicoms
from tests.support.dicoms import PERSON, half_breast, plain

WRITERS = {
    uid.ExplicitVRLittleEndian: plain,
    uid.JPEG2000Lossless: dicoms.jpeg_2000,
    uid.JPEGLosslessSV1: dicoms.jpeg_lossless,
    uid.RLELossless: dicoms.rle,
}
WINDOW = {"WindowCenter": 1500, "WindowWidth": 3000}
# The example of ITU-T T.87, annex H.3.
JPEG_LS = bytes.fromhex(
    "FFD8FFF7000B080004000401011100FFDA0008010100000000C000006C80208E01C0000057400000"
    "6EE6000001BC18000005D800009160FFD9"
)
JPEG_LS_PIXELS = np.array(
    [[0, 0, 90, 74], [68, 50, 43, 205], [64, 145, 145, 145], [100, 145, 145, 145]], np.uint8
)


def reason(content: bytes) -> str:
    """Why `content` is refused; fails the test if it tells anything personal."""
    with pytest.raises(UnreadableDicom) as caught:
        read_mammogram(content, 64)
    for secret in ("Doe", "Jane", "4711", "1954", "2.25."):
        assert secret not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("syntax", WRITERS, ids=lambda syntax: syntax.name)
def test_each_syntax_gives_the_same_picture(syntax: uid.UID) -> None:
    pixels = half_breast()
    mammogram = read_mammogram(WRITERS[syntax](pixels, **WINDOW), 1000)
    expected = read_mammogram(plain(pixels, **WINDOW), 1000)
    assert mammogram.description.transfer_syntax == syntax
    assert mammogram.description.photometric == "MONOCHROME2"
    assert (mammogram.stored_width, mammogram.stored_height) == (240, 300)
    np.testing.assert_array_equal(mammogram.pixels, expected.pixels)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    ],
    ids=lambda syntax: syntax.name,
)
def test_each_uncompressed_syntax_gives_the_same_picture(syntax: uid.UID) -> None:
    pixels = half_breast()
    stored = pixels.byteswap() if syntax == uid.ExplicitVRBigEndian else pixels
    content = dicoms.saved(dicoms.dataset(stored, syntax, **WINDOW))
    expected = read_mammogram(plain(pixels, **WINDOW), 1000)
    np.testing.assert_array_equal(read_mammogram(content, 1000).pixels, expected.pixels)


def test_jpeg_ls_of_8_bits_is_read_exactly() -> None:
    content = dicoms.encapsulated(
        JPEG_LS_PIXELS, uid.JPEGLSLossless, JPEG_LS,
        VOILUTFunction="LINEAR_EXACT", WindowCenter=127.5, WindowWidth=255,
    )  # fmt: skip
    np.testing.assert_array_equal(read_mammogram(content, 64).pixels, JPEG_LS_PIXELS)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
def test_high_throughput_jpeg_2000_leaves_levels_out_too(syntax: uid.UID) -> None:
    pixels = half_breast(1200, 960)
    frame = bytes(imagecodecs.htj2k_encode(pixels, resolutions=6))
    content = dicoms.encapsulated(pixels, syntax, frame, **WINDOW)
    full = read_mammogram(content, 150, full_decode=True).pixels
    same = read_mammogram(plain(pixels, **WINDOW), 150, full_decode=True).pixels
    np.testing.assert_array_equal(full, same)
    quick = read_mammogram(content, 150).pixels
    assert 0 < np.mean((quick.astype(float) - full) ** 2) < 255**2 / 10 ** (30 / 10)


@pytest.mark.parametrize("long_side", [600, 300, 280, 150, 99])
@pytest.mark.parametrize("signed", [False, True])
def test_halving_on_the_way_is_averaging_all_the_same(long_side: int, signed: bool) -> None:
    breast = half_breast(1200, 960)
    pixels = breast.astype(np.int16) - 1500 if signed else breast
    tags = {"WindowCenter": 0 if signed else 1500, "WindowWidth": 3000}
    content = plain(pixels, **tags)
    at_once = read_mammogram(content, long_side, full_decode=True).pixels
    by_halves = read_mammogram(content, long_side).pixels
    assert by_halves.shape == at_once.shape
    error = by_halves.astype(float) - at_once
    assert np.mean(error**2) < 255**2 / 10 ** (50 / 10)
    if long_side in (600, 300, 150):  # where the areas are the same: rounded more often
        assert np.abs(error).max() <= 1


def test_an_odd_side_is_not_halved() -> None:
    pixels = half_breast(1201, 961)
    for long_side in (600, 300, 150):
        np.testing.assert_array_equal(
            read_mammogram(plain(pixels, **WINDOW), long_side).pixels,
            read_mammogram(plain(pixels, **WINDOW), long_side, full_decode=True).pixels,
        )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("selection", range(1, 8))
def test_lossless_jpeg_of_any_depth_and_predictor_is_read_exactly(
    bits: int, selection: int
) -> None:
    pixels = half_breast() >> np.uint16(12 - bits) if bits < 12 else half_breast() << (bits - 12)
    frame = imagecodecs.jpeg_encode(
        pixels.astype(np.uint8 if bits == 8 else np.uint16),
        lossless=True, bitspersample=bits, predictor=selection,
    )  # fmt: skip
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    content = dicoms.encapsulated(pixels, uid.JPEGLossless, bytes(frame), **tags)
    expected = read_mammogram(plain(pixels, **tags), 1000).pixels
    np.testing.assert_array_equal(read_mammogram(content, 1000).pixels, expected)


def test_lossy_jpeg_of_12_bits_is_read() -> None:
    pixels = half_breast()
    frame = bytes(imagecodecs.jpeg_encode(pixels, level=98, bitspersample=12))
    content = dicoms.encapsulated(pixels, uid.JPEGExtended12Bit, frame, **WINDOW)
    expected = read_mammogram(plain(pixels, **WINDOW), 1000).pixels
    assert np.abs(read_mammogram(content, 1000).pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("name", ["path", "stream", "bytes"])
def test_a_path_a_stream_and_bytes_are_read(tmp_path: Path, name: str) -> None:
    content = plain(half_breast())
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    sources: dict[str, Path | BinaryIO | bytes] = {
        "path": path,
        "stream": io.BytesIO(content),
        "bytes": content,
    }
    assert read_mammogram(sources[name], 64).pixels.shape == (64, 51)


def reference(content: bytes) -> np.ndarray:
    """Pydicom's rendering, in 0..255 as floating-point numbers."""
    ds = pydicom.dcmread(io.BytesIO(content))
    with np.errstate(over="ignore"):  # pydicom's exp of a narrow sigmoid: 1 / infinity is 0
        seen = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float)
    # pydicom stretches the window over the range that the stored bits can reach.
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low = -(2 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
    high = low + 2**ds.BitsStored - 1
    low, high = low * slope + intercept, high * slope + intercept
    grey: np.ndarray = (seen - low) / (high - low) * 255
    return 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey


@settings(max_examples=60)
@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    center=st.floats(-500, 3000),
    width=st.floats(1.5, 4000),
    slope=st.sampled_from([1.0, 0.5, 2.0]),
    intercept=st.sampled_from([0.0, -1024.0]),
    signed=st.booleans(),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_windows_agree_with_pydicom(
    function: str,
    center: float,
    width: float,
    slope: float,
    intercept: float,
    signed: bool,
    photometric: str,
) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (12, 10)).astype(np.uint16)
    pixels[0, :2] = 0, 4095
    stored = (pixels.astype(np.int16) - 2048) if signed else pixels
    content = plain(
        stored, PhotometricInterpretation=photometric, VOILUTFunction=function,
        RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US",
        WindowCenter=round(center, 2), WindowWidth=round(width, 2),
    )  # fmt: skip
    expected = reference(content)
    if np.rint(expected).min() == np.rint(expected).max():
        return  # a window beside the data: the next test
    with patch.object(reader, "is_useful", return_value=True):
        assert np.abs(read_mammogram(content, 64).pixels - expected).max() <= 0.5 + 1e-2


def test_window_of_width_one_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "is_useful", lambda *about: True)
    pixels = half_breast()
    content = plain(pixels, WindowCenter=1000.5, WindowWidth=1)
    np.testing.assert_array_equal(
        read_mammogram(content, 1000).pixels, np.where(pixels > 1000, 255, 0)
    )


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 1500},
        {"WindowCenter": 1500, "WindowWidth": 0},
        {"WindowCenter": 1500, "WindowWidth": 0.5},
        {"WindowCenter": 60000, "WindowWidth": 10},
        {"WindowCenter": 1500, "WindowWidth": 3000, "VOILUTFunction": "LOGARITHMIC"},
    ],
)
def test_without_a_usable_window_percentiles_are_used(tags: dict[str, Any]) -> None:
    pixels = half_breast()
    pixels[:3, -10:] = 4095  # a label: less than the 0.2 % that may turn white
    grey = read_mammogram(plain(pixels, **tags), 1000).pixels
    low, high = np.percentile(pixels, (0.5, 99.8))
    assert high < 4095
    expected = np.clip((pixels - low) / (high - low), 0, 1) * 255
    assert np.abs(grey - expected).max() <= 0.5 + 1e-2


def test_of_several_windows_the_first_is_used() -> None:
    pixels = half_breast()
    several = plain(pixels, WindowCenter=[1500, 10], WindowWidth=[3000, 20])
    one = plain(pixels, **WINDOW)
    np.testing.assert_array_equal(
        read_mammogram(several, 99).pixels, read_mammogram(one, 99).pixels
    )


def test_monochrome1_is_inverted() -> None:
    pixels = half_breast()
    positive = read_mammogram(plain(pixels), 150).pixels
    negative = plain(4095 - pixels, PhotometricInterpretation="MONOCHROME1")
    assert np.abs(positive.astype(int) - read_mammogram(negative, 150).pixels).mean() < 1
    assert positive[:, 0].mean() > positive[:, -1].mean()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", [0, 4095])
@pytest.mark.parametrize("tags", [{}, WINDOW])
def test_padding_is_black_and_does_not_move_the_greys(
    photometric: str, padding: int, tags: dict[str, Any]
) -> None:
    pixels = half_breast().clip(100, 4000)
    if photometric == "MONOCHROME1":
        pixels = 4095 - pixels
    padded = np.pad(pixels, ((0, 0), (0, 160)), constant_values=padding)
    content = plain(
        padded, PhotometricInterpretation=photometric, PixelPaddingValue=padding, **tags
    )
    grey = read_mammogram(content, 1000).pixels
    bare = read_mammogram(plain(pixels, PhotometricInterpretation=photometric, **tags), 1000)
    np.testing.assert_array_equal(grey[:, :240], bare.pixels)
    assert (grey[:, 240:] == grey[:, :240].min()).all()


def test_a_range_of_padding_is_black() -> None:
    pixels = half_breast().clip(100, 4000)
    pixels[:, 200:] = np.random.default_rng(0).integers(4080, 4096, (300, 40))
    content = plain(pixels, PixelPaddingValue=4080, PixelPaddingRangeLimit=4095)
    assert (read_mammogram(content, 1000).pixels[:, 200:] == 0).all()


@pytest.mark.parametrize("write", [plain, dicoms.rle], ids=["plain", "rle"])
def test_signed_pixels_are_read_exactly_whatever_is_in_unused_bits(
    write: Callable[..., bytes],
) -> None:
    pixels = half_breast()
    signed = pixels.astype(np.int16) - 2048
    dirty = ((signed.view(np.uint16) & 0x0FFF) | 0x5000).view(np.int16)
    window = {"WindowCenter": -548, "WindowWidth": 3000}
    np.testing.assert_array_equal(
        read_mammogram(write(dirty, **window), 1000).pixels,
        read_mammogram(plain(pixels, **WINDOW), 1000).pixels,
    )


def test_signed_jpeg_2000_is_read_exactly() -> None:
    """Whether or not the stream itself says that its values are signed."""
    pixels = half_breast()
    signed = pixels.astype(np.int16) - 2048
    window = {"WindowCenter": -548, "WindowWidth": 3000}
    expected = read_mammogram(plain(pixels, **WINDOW), 1000).pixels
    stated = bytearray(dicoms.jpeg_2000_frame(pixels))
    stated[42] |= 0x80  # signed: no level shift, so the same stream is pixels - 2048
    content = dicoms.encapsulated(signed, uid.JPEG2000Lossless, bytes(stated), **window)
    np.testing.assert_array_equal(read_mammogram(content, 1000).pixels, expected)
    # As unsigned 12-bit values that are two's complement.
    frame = dicoms.jpeg_2000_frame(signed.view(np.uint16) & np.uint16(0x0FFF))
    content = dicoms.encapsulated(signed, uid.JPEG2000Lossless, frame, **window)
    np.testing.assert_array_equal(read_mammogram(content, 1000).pixels, expected)


def test_jpeg_2000_leaves_levels_out_and_looks_the_same() -> None:
    pixels = half_breast(1200, 960)
    content = dicoms.jpeg_2000(pixels, **WINDOW)
    quick = read_mammogram(content, 150).pixels
    full = read_mammogram(content, 150, full_decode=True).pixels
    assert quick.shape == full.shape == (150, 120)
    error = np.mean((quick.astype(float) - full) ** 2)
    # Another way, and 30 dB or better: three levels, so much texture, lie half a pixel askew.
    assert 0 < error < 255**2 / 10 ** (30 / 10)
    expected = cv2.resize(pixels, (120, 150), interpolation=cv2.INTER_AREA) / 2999 * 255
    assert np.abs(full - np.clip(expected, 0, 255)).max() < 1


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_jpeg_2000_with_too_few_levels_looks_the_same(levels: int) -> None:
    """The stream has fewer levels than could be left out: the lowest it has is taken."""
    pixels = half_breast(803, 643)
    grey = read_mammogram(dicoms.jpeg_2000(pixels, levels, **WINDOW), 100).pixels
    expected = read_mammogram(plain(pixels, **WINDOW), 100).pixels
    assert grey.shape == expected.shape
    assert np.abs(grey.astype(int) - expected).mean() < 2


@settings(max_examples=40)
@given(st.integers(32, 90), st.integers(32, 90), st.integers(8, 100), st.booleans())
def test_the_long_side_is_kept_to_and_the_aspect_stays(
    height: int, width: int, long_side: int, compressed: bool
) -> None:
    pixels = half_breast(height, width)
    write = dicoms.jpeg_2000 if compressed else plain
    content = write(pixels, WindowCenter=2000, WindowWidth=4000)
    mammogram = read_mammogram(content, long_side)
    new_height, new_width = mammogram.pixels.shape
    assert max(new_height, new_width) == min(long_side, max(height, width))
    scale = max(new_height, new_width) / max(height, width)
    assert abs(new_height - height * scale) < 1
    assert abs(new_width - width * scale) < 1


@pytest.mark.parametrize(
    ("tags", "laterality", "view"),
    [
        ({"ImageLaterality": "L", "ViewPosition": "MLO"}, "L", "MLO"),
        ({"Laterality": "R", "PatientOrientation": "CC"}, "R", "CC"),
        ({"ImageLaterality": "R", "PatientOrientation": ["P", "L"]}, "R", None),
        ({"SeriesDescription": "R CC"}, "R", "CC"),
        ({"SeriesDescription": "LMLO processed"}, "L", "MLO"),
        ({"SeriesDescription": "Left MLO"}, "L", "MLO"),
        ({"SeriesDescription": "L CC, R CC, L MLO, R MLO"}, None, None),
        ({"ImageLaterality": "B", "ViewPosition": ""}, None, None),
        ({"SeriesDescription": "screening"}, None, None),
    ],
)
def test_side_and_view_come_from_the_header(
    tags: dict[str, Any], laterality: str | None, view: str | None
) -> None:
    mammogram = read_mammogram(plain(half_breast(), **tags), 64)
    assert (mammogram.description.laterality, mammogram.description.view) == (laterality, view)


@pytest.mark.parametrize(
    ("scheme", "code", "view"),
    [("SCT", "399368009", "MLO"), ("SRT", "R-10242", "CC"), ("SNM3", "R-10224", "ML")],
)
def test_the_view_may_be_coded(scheme: str, code: str, view: str | None) -> None:
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, "view"
    assert (
        read_mammogram(plain(half_breast(), ViewCodeSequence=[item]), 64).description.view == view
    )


def test_what_is_no_dicom_file_is_refused() -> None:
    assert "not a DICOM file" in reason(b"GIF89a" * 100)
    assert "not a DICOM file" in reason(b"")


def test_a_missing_file_is_named_and_its_reason_names_no_path(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDicom, match="no such file") as caught:
        read_mammogram(tmp_path / "a.dcm", 64)
    assert str(tmp_path / "a.dcm") in str(caught.value)
    assert str(tmp_path) not in caught.value.reason
    copy = pickle.loads(pickle.dumps(caught.value))  # it may come from a worker process
    assert (copy.reason, str(copy)) == (caught.value.reason, str(caught.value))


def test_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDicom, match="cannot be opened"):
        read_mammogram(tmp_path, 64)


def test_long_side_must_be_positive() -> None:
    with pytest.raises(ValueError, match="long_side"):
        read_mammogram(b"", 0)


def without(name: str) -> bytes:
    ds = dicoms.dataset(half_breast())
    del ds[name]
    return dicoms.saved(ds)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda: without("PixelData"), "no pixel data"),
        (lambda: without("Rows"), "lacks Rows"),
        (lambda: without("PhotometricInterpretation"), "lacks PhotometricInterpretation"),
        (lambda: plain(half_breast(), NumberOfFrames=2), "2 frames"),
        (lambda: plain(half_breast(), SamplesPerPixel=3), "colour"),
        (lambda: plain(half_breast(), PhotometricInterpretation="RGB"), "MONOCHROME"),
        (lambda: plain(half_breast(), Rows=60000), "60000 pixels"),
        (lambda: plain(half_breast(), Rows=0), "0 pixels"),
        (lambda: plain(half_breast(), BitsAllocated=32), "in 32"),
        (lambda: plain(half_breast(), BitsStored=17), "17 bits"),
        (lambda: plain(np.full((50, 40), 7, np.uint16)), "one value"),
        (lambda: plain(np.full((50, 40), 7, np.uint16), PixelPaddingValue=7), "one value"),
        (lambda: plain(half_breast(), Rows=301), "damaged or cut short"),
    ],
)
def test_what_cannot_be_used_is_refused_for_what_it_is(
    content: Callable[[], bytes], expected: str
) -> None:
    assert expected in reason(content())


def test_a_nearly_empty_image_is_refused() -> None:
    pixels = np.zeros((200, 200), np.uint16)
    pixels[0, :20] = 4000
    assert "nearly all" in reason(plain(pixels))


def test_a_syntax_that_cannot_be_read_is_named() -> None:
    film = dicoms.encapsulated(half_breast(), uid.HEVCMP51, b"\0" * 20)
    assert "HEVC/H.265" in reason(film)
    private = film.replace(
        uid.HEVCMP51.encode(), b"1.2.3.4711.567890.12.34567"[: len(uid.HEVCMP51)]
    )
    assert "unknown transfer syntax" in reason(private)


@pytest.mark.parametrize("syntax", WRITERS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused_by_that_name(syntax: uid.UID, share: float) -> None:
    content = WRITERS[syntax](half_breast())
    assert "cut short" in reason(content[: 400 + int((len(content) - 400) * share)])


@pytest.mark.parametrize("fragments", [2, 3])
def test_a_stream_in_several_fragments_is_read(fragments: int) -> None:
    """As PS3.5 A.4 allows it, and archives do it."""
    content = dicoms.jpeg_lossless(half_breast())
    ds = pydicom.dcmread(io.BytesIO(content))
    frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = pydicom.encaps.encapsulate([frame], fragments_per_frame=fragments)
    pixels = read_mammogram(dicoms.saved(ds), 300).pixels
    np.testing.assert_array_equal(pixels, read_mammogram(content, 300).pixels)


@pytest.mark.parametrize("syntax", WRITERS, ids=lambda syntax: syntax.name)
def test_a_stream_cut_short_within_a_whole_file_is_refused(syntax: uid.UID) -> None:
    """As when an archive was filled from a disk without the end of its files."""
    pixels = half_breast()
    ds = pydicom.dcmread(io.BytesIO(WRITERS[syntax](pixels)))
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
        content = dicoms.encapsulated(pixels, syntax, frame[: len(frame) // 2])
    else:
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
        content = dicoms.saved(ds)
    assert "damaged or cut short" in reason(content)


@pytest.mark.parametrize("write", [dicoms.jpeg_2000, dicoms.jpeg_lossless, dicoms.rle])
@pytest.mark.parametrize("tags", [{"Rows": 100}, {"Columns": 1000}, {"Rows": 240, "Columns": 300}])
def test_what_header_and_stream_disagree_about_is_refused(
    write: Callable[..., bytes], tags: dict[str, Any]
) -> None:
    """The smaller of both would be overrun, or the rest of the larger made up."""
    ds = pydicom.dcmread(io.BytesIO(write(half_breast())))
    for name, value in tags.items():
        setattr(ds, name, value)
    if write is not dicoms.rle or len(tags) == 1:  # RLE states no size: only too much or too little
        reason(dicoms.saved(ds))


def test_rle_segments_that_lie_are_refused() -> None:
    pixels = half_breast(10, 8)
    long_run = struct.pack("bB", -127, 9) * 1000
    run, short = struct.pack("bB", -79, 9), struct.pack("bB", -78, 9)
    for planes in (
        [long_run, long_run], [b"", b""], [long_run], [b"\x7f\0", b"\x7f\0"], [run, short],
        [short, run], [run, long_run],
    ):  # fmt: skip
        frame = dicoms.rle_frame(*planes)
        reason(dicoms.encapsulated(pixels, uid.RLELossless, frame))
    reason(dicoms.encapsulated(pixels, uid.RLELossless, b"\xff" * 80))


@settings(max_examples=150)
@given(
    st.sampled_from(list(WRITERS.values())),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_are_read_or_refused_but_nothing_worse(
    write: Callable[..., bytes], damage: list[tuple[float, int]]
) -> None:
    content = bytearray(write(half_breast(40, 32)))
    for where, value in damage:
        content[132 + int(where * (len(content) - 132))] = value
    try:
        pixels = read_mammogram(bytes(content), 32).pixels
    except UnreadableDicom as error:
        text = str(error)
    else:
        text = ""
        assert max(pixels.shape) <= 32
    assert not any(value in text for value in PERSON.values())


def test_nothing_personal_is_printed(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    ds = dicoms.dataset(half_breast())
    with pytest.warns(UserWarning, match="Doe"):  # an invalid value: pydicom quotes it
        ds.add_new("PatientAge", "AS", "Doe, Jane is 71")
    content = dicoms.saved(ds)
    capfd.readouterr()
    recwarn.clear()
    read_mammogram(content, 64)
    reason(content[:2000])
    output = "".join(capfd.readouterr()) + "".join(str(w.message) for w in recwarn.list)
    assert "Doe" not in output
