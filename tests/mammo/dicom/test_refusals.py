"""Files from machines nobody has seen before: what is read all the same, and what is refused."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from mammo.base.settings import load_params
from mammo.dicom import container, reader
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import MAX_SIDE
from mammo.dicom.pixels import decode
from mammo.dicom.reader import read_mammogram
from mammo.intake.prepare import prepare
from tests.support import dicoms
from tests.support.dicoms import dataset, half_breast, lookup_table, plain, saved

WRITERS = (plain, dicoms.jpeg_2000, dicoms.jpeg_lossless, dicoms.rle)


def reason(content: bytes) -> str:
    with pytest.raises(UnreadableDicom) as caught:
        read_mammogram(content, 64)
    return caught.value.reason


def changed(content: bytes, **tags: object) -> bytes:
    """A file with another header round the same pixel data."""
    ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    for name, value in tags.items():
        setattr(ds, name, value)
    return dicoms.saved(ds)


@settings(max_examples=200)
@given(st.sampled_from([write(half_breast(40, 32)) for write in WRITERS]), st.data())
def test_a_file_cut_short_at_any_byte_is_refused(content: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(content) - 1))
    try:
        read = read_mammogram(content[:length], 64)
    except UnreadableDicom:
        return
    # Only what follows the pixels is missing: the end of their delimiter.
    assert len(content) - length <= 8
    np.testing.assert_array_equal(read.pixels, read_mammogram(content, 64).pixels)


def test_a_file_cut_short_says_so() -> None:
    content = plain(half_breast())
    assert reason(content[:-1]) == "its pixel data are damaged or cut short"
    assert "cut short" in reason(content[:300])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "CT"}, "it is a CT slice, not a mammogram"),
        ({"Modality": "OT"}, "of no particular kind (OT)"),
        ({"Modality": "DOE"}, "something else, not a mammogram"),
        ({"SOPClassUID": uid.BreastTomosynthesisImageStorage}, "tomosynthesis"),
        ({"NumberOfFrames": 60}, "60 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels"),
        ({"Rows": 20000, "Columns": 20000}, "20000 x 20000 pixels"),
        ({"Rows": MAX_SIDE, "Columns": MAX_SIDE}, "more than 134217728 are not read"),
        ({"PixelRepresentation": 2}, "signed"),
        ({"RescaleSlope": 0}, "rescale slope"),
        ({"RescaleSlope": "1e300"}, "rescale slope"),
        ({"RescaleIntercept": "1e30"}, "rescale slope or intercept"),
        ({"ModalityLUTSequence": [Dataset()]}, "modality lookup table"),
        ({"PixelData": b""}, "pixel data are empty"),
        ({"PixelData": b"\0" * 100}, "cut short"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tags: dict[str, Any], expected: str) -> None:
    assert expected in reason(changed(plain(half_breast()), **tags))


@pytest.mark.parametrize("write", [plain, dicoms.rle])
@pytest.mark.parametrize("high_bit", [15, 10])
def test_an_odd_high_bit_is_refused_where_nothing_else_says_what_the_bits_mean(
    write: Callable[..., bytes], high_bit: int
) -> None:
    assert "(HighBit" in reason(changed(write(half_breast()), HighBit=high_bit))


@pytest.mark.parametrize("write", [dicoms.jpeg_2000, dicoms.jpeg_lossless])
def test_an_odd_high_bit_does_not_matter_where_the_stream_says_it(
    write: Callable[..., bytes],
) -> None:
    content = write(half_breast())
    expected = read_mammogram(content, 64).pixels
    odd = read_mammogram(changed(content, HighBit=15), 64).pixels
    np.testing.assert_array_equal(odd, expected)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("write", [plain, dicoms.rle])
def test_any_number_of_bits_stored_is_read(write: Callable[..., bytes], bits: int) -> None:
    pixels = half_breast(top=2**bits - 1 if bits < 12 else 3000) << max(0, bits - 12)
    pixels = pixels.clip(0, 2**bits - 1).astype(np.uint16)
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    grey = read_mammogram(
        write(pixels, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits, **tags), 999
    )
    expected = (pixels - (2 ** (bits - 1) - 0.5)) / (2**bits - 1) + 0.5
    assert np.abs(grey.pixels - expected.clip(0, 1) * 255).max() < 0.51


@pytest.mark.parametrize("width", [0, -100])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_without_width_is_as_none(width: int, function: str) -> None:
    pixels = half_breast()
    content = plain(pixels, WindowCenter=1500, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_array_equal(
        read_mammogram(content, 99).pixels, read_mammogram(plain(pixels), 99).pixels
    )


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_voi_lookup_table_is_applied_where_there_is_no_window(bits: int, as_bytes: bool) -> None:
    pixels = half_breast()
    curve = np.rint((np.arange(2000) / 1999) ** 0.5 * (2**bits - 1)).astype(np.uint16)
    table = lookup_table(curve, 500, bits)
    if not as_bytes:
        table["LUTData"].VR, table["LUTData"].value = "US", curve.tolist()
    expected = curve[np.clip(pixels.astype(int) - 500, 0, 1999)] / (2**bits - 1) * 255
    for tags in ({}, {"WindowCenter": 1000, "WindowWidth": 0}):
        grey = read_mammogram(plain(pixels, VOILUTSequence=[table], **tags), 999).pixels
        assert np.abs(grey - expected).max() < 0.51
    windowed = {"WindowCenter": 1500, "WindowWidth": 3000}
    np.testing.assert_array_equal(
        read_mammogram(plain(pixels, VOILUTSequence=[table], **windowed), 99).pixels,
        read_mammogram(plain(pixels, **windowed), 99).pixels,
    )


def test_a_voi_lookup_table_is_applied_to_signed_values() -> None:
    pixels = half_breast()
    curve = np.linspace(0, 4095, 4096).astype(np.uint16)
    signed = plain(pixels.astype(np.int16) - 2048, VOILUTSequence=[lookup_table(curve, 63488, 12)])
    unsigned = plain(pixels, VOILUTSequence=[lookup_table(curve, 0, 12)])
    np.testing.assert_array_equal(
        read_mammogram(signed, 99).pixels, read_mammogram(unsigned, 99).pixels
    )


@pytest.mark.parametrize(("values", "bits"), [(np.arange(5), 12), (np.full(4096, 7), 12)])
def test_a_damaged_voi_lookup_table_is_as_none(values: np.ndarray, bits: int) -> None:
    pixels = half_breast()
    table = lookup_table(values.astype(np.uint16), 0, bits)
    if len(values) == 5:
        table.LUTDescriptor = [4096, 0, bits]
    np.testing.assert_array_equal(
        read_mammogram(plain(pixels, VOILUTSequence=[table]), 99).pixels,
        read_mammogram(plain(pixels), 99).pixels,
    )


def test_lat_is_a_view_and_no_side() -> None:
    mammogram = read_mammogram(plain(half_breast(), SeriesDescription="LAT"), 64)
    assert (mammogram.description.laterality, mammogram.description.view) == (None, None)


def test_a_jpeg_2000_stream_that_claims_more_than_the_header_is_refused() -> None:
    pixels = half_breast()
    frame = bytearray(dicoms.jpeg_2000_frame(pixels))
    frame[8:16] = (60000).to_bytes(4, "big") * 2  # Xsiz and Ysiz (T.800 A.5.1)
    content = dicoms.encapsulated(pixels, uid.JPEG2000Lossless, bytes(frame))
    assert "pixel data are" in reason(content)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ds = dicoms.dataset(half_breast(), uid.DeflatedExplicitVRLittleEndian)
    content = dicoms.saved(ds)
    read_mammogram(content, 64)
    monkeypatch.setattr(container, "MAX_BYTES", 100_000)
    assert len(content) < 100_000
    assert "larger than" in reason(content)


def test_a_deflated_file_cut_short_is_refused() -> None:
    content = dicoms.saved(dicoms.dataset(half_breast(), uid.DeflatedExplicitVRLittleEndian))
    assert "cut short: it cannot be unpacked" in reason(content[: len(content) // 2])


def test_a_large_file_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.truncate(container.MAX_BYTES + 1)  # takes no room
    with pytest.raises(UnreadableDicom, match="larger than 512 MiB"):
        read_mammogram(path, 64)


@pytest.mark.parametrize("write", [plain, dicoms.jpeg_lossless])
@pytest.mark.parametrize("share", [0, 0.9])
def test_a_file_cut_short_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., bytes], share: float
) -> None:
    noise = np.random.default_rng(3).integers(0, 512, (1400, 1000))  # so that it stays large
    pixels = half_breast(1400, 1000) + noise.astype(np.uint16)
    path = tmp_path / "a.dcm"
    path.write_bytes(write(pixels))
    read_mammogram(path, 350)

    def cut_short(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        os.truncate(path, int(share * path.stat().st_size))
        return decode(*arguments)

    monkeypatch.setattr(reader, "decode", cut_short)
    with pytest.raises(UnreadableDicom) as caught:
        read_mammogram(path, 350)
    assert caught.value.reason == "its pixel data are damaged or cut short"


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(UnreadableDicom, match="folder or a device"):
        read_mammogram(tmp_path / "pipe.dcm", 64)


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(plain(half_breast()))

    def refuse(self: object, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)  # root may read everything
    with pytest.raises(UnreadableDicom) as caught:
        read_mammogram(path, 64)
    assert caught.value.reason == "the file cannot be opened (Permission denied)"


def test_a_header_of_many_elements_costs_no_memory_and_no_other_element_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ds = dicoms.dataset(half_breast())
    block = ds.private_block(0x0011, "MAKER", create=True)
    for number in range(200):
        block.add_new(number, "LO", "Doe^Jane")
    seen = []
    original = pydicom.dcmread

    def spy(*arguments: Any, **options: Any) -> Dataset:
        seen.append(original(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(pydicom, "dcmread", spy)
    read_mammogram(dicoms.saved(ds), 64)
    assert "PatientName" not in seen[0]
    assert len(seen[0]) < 30


def test_an_unusual_header_that_can_be_read_is_told_in_notes() -> None:
    mammogram = read_mammogram(
        plain(
            half_breast(620, 480),
            Modality="MG",
            SOPClassUID=uid.SecondaryCaptureImageStorage,
            BurnedInAnnotation="YES",
        ),
        64,
    )
    assert mammogram.description.secondary_capture
    assert mammogram.description.burned_in
    mammogram = read_mammogram(plain(half_breast()), 64)
    assert not mammogram.description.secondary_capture
    assert not mammogram.description.burned_in


def test_the_instance_is_told_apart_but_not_told() -> None:
    one, two = (plain(half_breast(), SOPInstanceUID=f"1.2.840.99.{n}") for n in (1, 2))
    first, again, other = (
        read_mammogram(content, 64).description.instance for content in (one, one, two)
    )
    assert first == again != other
    assert "840" not in str(first)


@pytest.mark.parametrize("picture", ["noise", "a marker", "a dot"])
def test_a_picture_without_a_breast_is_refused(picture: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 200, (400, 300)).astype(np.uint16)
    if picture == "a marker":  # strokes of lead
        pixels[30:60:10, 200:260] = pixels[30:60, 200:260:15] = 4000
    elif picture == "a dot":
        pixels[30:50, 200:220] = 4000
    with pytest.raises(UnreadableDicom, match="no breast can be seen"):
        prepare(plain(pixels), load_params().preprocess)
    prepare(plain(half_breast()), load_params().preprocess)


@pytest.mark.parametrize("instead", [0xCF, 0xFE], ids=["a second frame header", "no tables"])
def test_a_lossless_jpeg_on_which_its_decoder_would_crash_is_refused(instead: int) -> None:
    content = bytearray(dicoms.jpeg_lossless(half_breast(64, 48)))
    tables = content.index(b"\xff\xc4", content.index(b"\xff\xc3"))
    content[tables + 1] = instead
    assert reason(bytes(content)) == "its pixel data are damaged or cut short"


def test_many_threads_read_as_one_and_none_lets_a_warning_out() -> None:
    written = dataset(half_breast(), WindowCenter=2048, WindowWidth=4096)
    written.add_new("PatientBirthDate", "DA", "19540321 Doe^Jane")
    written.add_new("ViewPosition", "CS", "much longer than a code string may be")
    content = saved(written)
    alone = read_mammogram(content, 64).pixels.tobytes()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as said, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: read_mammogram(content, 64).pixels.tobytes(), range(80)))
    assert set(together) == {alone}
    assert said == []
    assert warnings.filters == before
