"""What is written as a mammogram is read back exactly, in every encoding, by other readers."""

import io
from pathlib import Path

import dicomsdl
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from pydicom.encaps import generate_frames

from mammo.datasets.dicom_writer import (
    MammogramFacts,
    TransferSyntax,
    Window,
    derive_uid,
    encode_mammogram,
)
from mammo.dicom.reader import read_mammogram

ABOUT = MammogramFacts(
    patient_id="10011",
    image_id="462822612",
    laterality="L",
    view="CC",
    patient_orientation=("A", "R"),
    windows=(Window(2000, 3000), Window(2100, 3500, explanation="SOFT")),
    pixel_spacing_mm=0.1875,
    patient_name="Phantom^10011",
    age_years=61,
    study_date="20190304",
)


def _image(rows: int, columns: int, bits: int, smooth: int, seed: int) -> NDArray[np.uint16]:
    """Random pixels of a given depth; the larger `smooth`, the more alike are neighbours."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 2**bits, size=(rows, columns), dtype=np.uint16)
    return (noise >> min(smooth, bits)).astype(np.uint16)


images = st.builds(
    _image,
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    bits=st.just(12),
    smooth=st.integers(0, 12),
    seed=st.integers(0, 2**16),
)


def _stored_by_dicomsdl(content: bytes, folder: Path) -> NDArray[np.generic]:
    path = folder / "image.dcm"
    path.write_bytes(content)
    pixels: NDArray[np.generic] = dicomsdl.open(str(path)).pixelData(storedvalue=True)
    return pixels


@pytest.mark.parametrize("syntax", list(TransferSyntax))
@given(pixels=images)
@settings(max_examples=25)
def test_dicomsdl_reads_back_every_pixel(
    syntax: TransferSyntax,
    pixels: NDArray[np.uint16],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stored = _stored_by_dicomsdl(
        encode_mammogram(pixels, ABOUT, syntax), tmp_path_factory.getbasetemp()
    )
    np.testing.assert_array_equal(stored, pixels)


@pytest.mark.parametrize(
    "syntax", [syntax for syntax in TransferSyntax if syntax is not TransferSyntax.JPEG_LOSSLESS]
)
def test_pydicom_reads_back_every_pixel(syntax: TransferSyntax) -> None:
    pixels = _image(90, 64, 12, 2, 7)
    dataset = pydicom.dcmread(io.BytesIO(encode_mammogram(pixels, ABOUT, syntax)))
    np.testing.assert_array_equal(dataset.pixel_array, pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_every_depth_survives(bits: int, tmp_path: Path) -> None:
    pixels = _image(63, 47, bits, 1, 3)
    pixels[0, 0], pixels[-1, -1] = 0, 2**bits - 1
    about = MammogramFacts("1", "2", "R", "MLO", ("P", "FL"), bits_stored=bits)
    for syntax in TransferSyntax:
        stored = _stored_by_dicomsdl(encode_mammogram(pixels, about, syntax), tmp_path)
        np.testing.assert_array_equal(stored, pixels)


def test_jpeg_2000_states_its_depth_and_has_resolution_levels() -> None:
    pixels = _image(256, 192, 12, 4, 1)
    dataset = pydicom.dcmread(io.BytesIO(encode_mammogram(pixels, ABOUT)))
    code = next(generate_frames(dataset.PixelData, number_of_frames=1))
    # Pillow shifts a 12 bit image to 16 bits; one that claimed 16 bits it would leave alone.
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(code))), pixels << 4)
    small = Image.open(io.BytesIO(code))
    assert isinstance(small, Jpeg2KImageFile)
    small.reduce = 4
    small.load()
    assert small.size == (12, 16)


def test_the_pixels_decide_about_the_bytes_and_nothing_else_does() -> None:
    pixels = _image(40, 30, 12, 3, 1)
    other = pixels.copy()
    other[5, 5] ^= 1
    for syntax in TransferSyntax:
        once = encode_mammogram(pixels, ABOUT, syntax)
        assert encode_mammogram(pixels.copy(order="F"), ABOUT, syntax) == once
        assert encode_mammogram(other, ABOUT, syntax) != once


def test_the_header_is_that_of_a_mammogram_for_presentation() -> None:
    dataset = pydicom.dcmread(io.BytesIO(encode_mammogram(_image(40, 30, 12, 3, 1), ABOUT)))
    assert dataset.SOPClassUID == pydicom.uid.DigitalMammographyXRayImageStorageForPresentation
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert (dataset.Rows, dataset.Columns) == (40, 30)
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
    assert (dataset.ImageLaterality, dataset.ViewPosition) == ("L", "CC")
    assert list(dataset.PatientOrientation) == ["A", "R"]
    assert dataset.ViewCodeSequence[0].CodeValue == "399162004"
    assert list(dataset.WindowCenter) == [2000, 2100]
    assert dataset.VOILUTFunction == "LINEAR"
    assert list(dataset.ImagerPixelSpacing) == [0.1875, 0.1875]
    assert dataset.PatientAge == "061Y"
    for element in dataset.iterall():
        if element.VR == "UI":
            assert pydicom.uid.UID(element.value).is_valid


def test_uids_differ_by_image_and_agree_by_study() -> None:
    pixels = _image(16, 16, 12, 3, 1)
    headers = [
        pydicom.dcmread(
            io.BytesIO(encode_mammogram(pixels, MammogramFacts("1", image, "L", "CC", ("A", "R"))))
        )
        for image in ("7", "8")
    ]
    assert headers[0].SOPInstanceUID != headers[1].SOPInstanceUID
    assert headers[0].StudyInstanceUID == headers[1].StudyInstanceUID
    assert derive_uid("a", "b") != derive_uid("a", "c")


def test_monochrome1_shows_low_values_bright() -> None:
    pixels = np.full((64, 64), 3000, np.uint16)
    pixels[:, :32] = 500
    pixels += np.arange(64, dtype=np.uint16)[:, None]  # of two values it would be a mask
    for photometric, bright in (("MONOCHROME1", 0), ("MONOCHROME2", 63)):
        about = MammogramFacts(
            "1", "2", "L", "CC", ("A", "R"), (Window(1750, 3500),), photometric=photometric
        )
        seen = read_mammogram(encode_mammogram(pixels, about), 64).pixels
        assert seen[10, bright] > 150 > 100 > seen[10, 63 - bright]


@pytest.mark.parametrize(
    "about",
    [
        MammogramFacts("1", "2", "B", "CC", ("A", "R")),
        MammogramFacts("1", "2", "L", "LATERAL", ("A", "R")),
        MammogramFacts("1", "2", "L", "CC", ("A", "R"), photometric="RGB"),
        MammogramFacts("1", "2", "L", "CC", ("A", "R"), bits_stored=17),
        MammogramFacts("1", "2", "L", "CC", ("A", "R"), windows=(Window(100, 0),)),
        MammogramFacts("1", "2", "L", "CC", ("A", "R"), windows=(Window(100, 10, "CUBIC"),)),
        MammogramFacts(
            "1", "2", "L", "CC", ("A", "R"), windows=(Window(9, 9), Window(9, 9, "SIGMOID"))
        ),
    ],
)
def test_headers_that_make_no_sense_are_refused(about: MammogramFacts) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_mammogram(_image(16, 16, 8, 0, 1), about)


def test_pixels_beyond_the_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="12 bits"):
        encode_mammogram(np.full((4, 4), 4096, np.uint16), ABOUT)
    with pytest.raises(ValueError, match="uint16"):
        encode_mammogram(np.zeros((4, 4), np.uint8), ABOUT)
