"""Mammograms as hospitals, registries and their machines bring them.

They are read right, or refused by name, and a fault of ours is never taken for one of theirs.
"""

import errno
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from mammo import dicom
from mammo.base.settings import load_params
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.reader import read_mammogram, read_patient
from mammo.intake.prepare import prepare
from tests.support import dicoms
from tests.support.dicoms import (
    PERSON,
    dataset,
    encapsulated,
    half_breast,
    lookup_table,
    plain,
    saved,
)

WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
BREAST = half_breast()
RIGHT = read_mammogram(plain(BREAST, **WINDOW), 1024).pixels.astype(int)
MG = uid.DigitalMammographyXRayImageStorageForPresentation
RAMP = np.arange(4096, dtype=np.uint16)


def pixels(content: bytes, long_side: int = 1024) -> np.ndarray:
    return read_mammogram(content, long_side).pixels.astype(int)


def reason(content: bytes) -> str:
    """Why it is refused; fails the test if it tells anything personal."""
    with pytest.raises(UnreadableDicom) as caught:
        read_mammogram(content, 1024)
    assert not [secret for secret in PERSON.values() if secret in str(caught.value)]
    return caught.value.reason


def likeness(content: bytes) -> int:
    """How many greys the worst pixel is off the right picture."""
    return int(np.abs(pixels(content) - RIGHT).max())


# VOI lookup tables


@pytest.mark.parametrize("stated", [8, 10, 12, 16, 0, 40])
def test_a_lookup_table_of_12_bits_is_scaled_by_its_own_range_whatever_it_states(
    stated: int,
) -> None:
    assert likeness(plain(BREAST, VOILUTSequence=[lookup_table(RAMP, 0, stated)])) <= 1


def test_a_lookup_table_that_states_no_bits_is_applied() -> None:
    table = lookup_table(RAMP, 0, 12)
    table.LUTDescriptor = [4096, 0]
    assert likeness(plain(BREAST, VOILUTSequence=[table])) <= 1


@pytest.mark.parametrize(
    ("highest", "stated", "white"),
    [
        (4000, 12, 4095),  # a part of what is stated
        (3686, 12, 4095),  # to 90 % of white, on purpose
        (2300, 12, 4095),  # to a little over the half
        (2047, 12, 2047),  # one bit less
        (2047, 11, 2047),
        (1843, 12, 2047),  # to 90 % of white, and one bit less
        (127, 8, 127),
        (32767, 16, 32767),
        (65280, 16, 65535),
        (256, 8, 255),  # a little beyond it: white
        (4000, 16, 4095),
        (1023, 16, 1023),
    ],
)
def test_white_is_what_the_bits_of_a_lookup_tables_highest_entry_can_hold(
    highest: int, stated: int, white: int
) -> None:
    values = np.linspace(0, highest, 4096).astype(np.uint16)
    shown = pixels(plain(BREAST, VOILUTSequence=[lookup_table(values, 0, stated)]))
    expected = np.minimum(values[BREAST] / white, 1) * 255
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("as_numbers", [False, True])
def test_a_lookup_table_of_8_bits_may_be_two_in_a_word(syntax: uid.UID, as_numbers: bool) -> None:
    curve = np.linspace(0, 255, 3000).astype(np.uint8)
    big = syntax == uid.ExplicitVRBigEndian
    packed = curve.view("<u2")
    table = lookup_table(packed.astype(">u2") if big else packed, 0, 8)
    table.LUTDescriptor = [3000, 0, 8]
    if as_numbers:
        table["LUTData"].VR, table["LUTData"].value = "US", packed.tolist()
    stored = BREAST.byteswap() if big else BREAST
    shown = pixels(saved(dataset(stored, syntax, VOILUTSequence=[table])))
    assert np.abs(shown - curve[np.minimum(BREAST, 2999)].astype(int)).max() <= 1


def test_a_lookup_table_is_applied_to_values_that_a_rescale_made_negative() -> None:
    """The first of them read as unsigned, since the pixels are."""
    table = lookup_table(RAMP, 2**16 - 1024, 12)
    shifted = plain(BREAST, VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=-1024)
    assert likeness(shifted) <= 1


# For processing, tomosynthesis, generated 2D


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing},
        {"PresentationIntentType": "FOR PROCESSING"},
        {"PresentationIntentType": "for processing "},
        {
            "SOPClassUID": uid.DigitalXRayImageStorageForProcessing, "Modality": "DX",
            "BodyPartExamined": "BREAST", "ViewPosition": "CC",
        },
    ],
)  # fmt: skip
def test_an_image_for_processing_is_refused_by_that_name(tags: dict[str, Any]) -> None:
    assert "for processing, not for presentation" in reason(plain(BREAST, **WINDOW, **tags))


def test_an_image_that_does_not_say_what_it_is_for_is_read() -> None:
    assert likeness(plain(BREAST, **WINDOW)) == 0
    assert likeness(plain(BREAST, PresentationIntentType="FOR PRESENTATION", **WINDOW)) == 0


@pytest.mark.parametrize(
    ("sop_class", "image_type"),
    [
        (uid.CTImageStorage, ["DERIVED", "SECONDARY", "TOMOSYNTHESIS", "NONE"]),
        (uid.CTImageStorage, ["DERIVED", "PRIMARY"]),
        (MG, ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]),
        (MG, ["DERIVED", "PRIMARY", "tomosynthesis"]),
        (uid.SecondaryCaptureImageStorage, ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]),
        (uid.BreastTomosynthesisImageStorage, ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]),
        (uid.BreastProjectionXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY", "", "NONE"]),
        (uid.BreastProjectionXRayImageStorageForProcessing, ["ORIGINAL", "PRIMARY"]),
    ],
)  # fmt: skip
def test_tomosynthesis_is_refused_as_such_in_every_class(
    sop_class: uid.UID, image_type: list[str]
) -> None:
    content = plain(BREAST, Modality="MG", SOPClassUID=sop_class, ImageType=image_type, **WINDOW)
    assert "tomosynthesis" in reason(content)


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "PRIMARY", "TOMO SLICE"],
        ["DERIVED", "PRIMARY", "TOMO_SLICE"],
        ["DERIVED", "PRIMARY", "", "TOMOSYNTHESIS"],
        ["ORIGINAL", "PRIMARY", "", "RIGHT", "Tomo Proj"],
        ["DERIVED", "PRIMARY", "DBT"],
        ["DERIVED", "PRIMARY", "TOMO_SCOUT", "NONE"],
    ],
)
@pytest.mark.parametrize("sop_class", [MG, uid.SecondaryCaptureImageStorage])
def test_tomosynthesis_is_known_by_any_later_value_of_the_image_type(
    sop_class: uid.UID, image_type: list[str]
) -> None:
    content = plain(BREAST, SOPClassUID=sop_class, ImageType=image_type, **WINDOW)
    assert "it is of a tomosynthesis" in reason(content)


@pytest.mark.parametrize("where", ["header", "SharedFunctionalGroupsSequence"])
def test_tomosynthesis_is_known_by_the_type_of_its_frame(where: str) -> None:
    kind, group = Dataset(), Dataset()
    kind.FrameType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
    group.XRay3DFrameTypeSequence = [kind]
    tags = {"FrameType": kind.FrameType} if where == "header" else {where: [group]}
    content = plain(BREAST, SOPClassUID=uid.SecondaryCaptureImageStorage, **tags, **WINDOW)
    assert "it is of a tomosynthesis" in reason(content)


@pytest.mark.parametrize("sop_class", [MG, uid.SecondaryCaptureImageStorage])
@pytest.mark.parametrize(
    ("description", "stack"),
    [
        ("L CC Tomosynthesis Reconstruction", True),
        ("R_MLO_Tomo_Slice 12", True),
        ("LMLO DBT slab", True),
        ("L CC Tomosynthesis", False),
        ("SCREENING TOMO BILAT", False),
        ("DBT R CC", False),
    ],
)
def test_tomosynthesis_is_known_by_its_series_description(
    description: str, stack: bool, sop_class: uid.UID
) -> None:
    """In the class of mammograms only if it says which part of a stack it is.

    The exam of a mammogram may have had a tomosynthesis too.
    """
    content = plain(FILM, SOPClassUID=sop_class, SeriesDescription=description)
    if stack or sop_class != MG:
        assert "it is of a tomosynthesis" in reason(content)
    else:
        read_mammogram(content, 64)


@pytest.mark.parametrize(
    "description",
    ["L CC C-View Tomo", "TOMO 2D R MLO", "Tomosynthesis Synthesized 2D", "Insight_2D tomo proj"],
)
def test_a_2d_image_is_no_tomosynthesis_for_its_series_description(description: str) -> None:
    tags = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "SeriesDescription": description}
    read_mammogram(plain(FILM, **tags), 64)


@pytest.mark.parametrize("said", ["generated_2d", "GENERATED 2D", "Tomo 2D", "C_VIEW", "Synthetic"])
def test_a_generated_2d_image_is_known_in_any_spelling(said: str) -> None:
    image_type = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", said]
    assert read_mammogram(
        plain(BREAST, ImageType=image_type, **WINDOW), 64
    ).description.generated_2d


@pytest.mark.parametrize(
    "sop_class",
    [
        MG,
        uid.BreastTomosynthesisImageStorage,
        uid.CTImageStorage,
    ],
)
def test_a_2d_image_made_of_a_tomosynthesis_is_read_and_noted_in_every_class(
    sop_class: uid.UID,
) -> None:
    generated = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]
    tags = {"Modality": "MG", "SOPClassUID": sop_class, "ImageType": generated}
    mammogram = read_mammogram(plain(BREAST, **tags, **WINDOW), 1024)
    assert mammogram.description.generated_2d
    np.testing.assert_array_equal(mammogram.pixels, RIGHT)
    assert not read_mammogram(plain(BREAST), 64).description.generated_2d


def test_the_window_of_an_enhanced_object_is_found_where_it_is() -> None:
    """A 2D image in the class of tomosynthesis says it of its frame."""
    window, rescale, group = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 1024, 4096
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [rescale]
    content = plain(
        BREAST, Modality="MG", SOPClassUID=uid.BreastTomosynthesisImageStorage,
        ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"],
        SharedFunctionalGroupsSequence=[group],
    )  # fmt: skip
    assert likeness(content) == 0


# Padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", [0, 4095])
@pytest.mark.parametrize(
    "write", [plain, dicoms.rle, dicoms.jpeg_lossless, dicoms.jpeg_2000, dicoms.htj2k]
)
def test_padding_leaves_no_seam_at_any_size(
    write: Callable[..., bytes], photometric: str, padding: int
) -> None:
    """It is masked before anything is averaged, whatever the encoding could leave out."""
    values = half_breast(600, 480).clip(20, 4000)
    padded = np.pad(values, ((37, 0), (0, 93)), constant_values=padding)
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": padding, **WINDOW}
    shown = pixels(write(padded, **tags), 150)
    black = values.min() if photometric == "MONOCHROME2" else values.max()
    inside = np.pad(values, ((37, 0), (0, 93)), constant_values=black)
    tags.pop("PixelPaddingValue")
    np.testing.assert_array_equal(
        shown, read_mammogram(plain(inside, **tags), 150, full_decode=True).pixels
    )


def lossy_jpeg_2000(values: np.ndarray, **tags: Any) -> bytes:
    frame = imagecodecs.jpeg2k_encode(
        values, codecformat="j2k", reversible=False, bitspersample=12, level=60
    )
    return encapsulated(values, uid.JPEG2000, bytes(frame), **tags)


def lossy_jpeg(values: np.ndarray, **tags: Any) -> bytes:
    frame = bytes(imagecodecs.jpeg_encode(values, level=90, bitspersample=12))
    return encapsulated(values, uid.JPEGExtended12Bit, frame, **tags)


@pytest.mark.parametrize("padding", [0, 4095])
@pytest.mark.parametrize("write", [lossy_jpeg_2000, lossy_jpeg])
def test_padding_leaves_no_seam_where_a_lossy_encoding_smears_it(
    write: Callable[..., bytes], padding: int
) -> None:
    values = half_breast(600, 480).clip(20, 4000)
    padded = np.pad(values, ((37, 0), (0, 93)), constant_values=padding)
    tags = {"PixelPaddingValue": padding, **WINDOW}
    inside = np.pad(values, ((37, 0), (0, 93)), constant_values=values.min())
    expected = read_mammogram(plain(inside, **WINDOW), 150, full_decode=True).pixels
    assert np.abs(pixels(write(padded, **tags), 150) - expected)[12:].max() <= 12
    assert np.abs(pixels(write(padded, **tags), 150) - expected).mean() <= 1


@pytest.mark.parametrize("signed", [False, True])
def test_padding_that_is_written_with_the_other_sign_is_black(signed: bool) -> None:
    values = BREAST.astype(np.int16) - 2048 if signed else BREAST
    padding = -2048 if signed else 65535
    padded = np.pad(values, ((0, 0), (0, 60)), constant_values=padding)
    written = dataset(padded, BitsStored=16, HighBit=15)
    written.add_new(
        "PixelPaddingValue", "US" if signed else "SS", padding % 2**16 if signed else -1
    )
    assert (pixels(saved(written))[:, 240:] <= 1).all()
    assert pixels(saved(written)).max() > 200


# The ends and the bits of streams


def jpeg_ls(values: np.ndarray, **tags: Any) -> bytes:
    return encapsulated(
        values, uid.JPEGLSLossless, bytes(imagecodecs.jpegls_encode(values)), **tags
    )


WRITERS = [dicoms.jpeg_lossless, jpeg_ls, dicoms.jpeg_2000, dicoms.htj2k]


def with_frame(content: bytes, change: Callable[[bytes], bytes], **tags: Any) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(content))
    frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([change(frame)])
    for name, value in tags.items():
        setattr(ds, name, value)
    return saved(ds)


@pytest.mark.parametrize("after", [bytes(14), bytes(15), bytes(4096), b"\xff" * 40, b"\x07" * 64])
@pytest.mark.parametrize("write", WRITERS)
def test_what_follows_the_end_of_a_stream_is_none_of_its_business(
    write: Callable[..., bytes], after: bytes
) -> None:
    content = with_frame(write(BREAST, **WINDOW), lambda frame: frame + after)
    assert likeness(content) == 0


@pytest.mark.parametrize("zeros", [1, 2, 15, 64])
def test_zeros_after_rle_are_no_more_pixels(zeros: int) -> None:
    """It has no mark of an end, so anything else is too much."""
    content = dicoms.rle(BREAST, **WINDOW)
    assert likeness(with_frame(content, lambda frame: frame + bytes(zeros))) == 0
    assert "damaged" in reason(with_frame(content, lambda frame: frame + b"\x81\x07" * 8))


@pytest.mark.parametrize("write", [dicoms.jpeg_lossless, jpeg_ls])
def test_a_stream_without_an_end_is_still_refused(write: Callable[..., bytes]) -> None:
    content = with_frame(write(BREAST), lambda frame: frame.rstrip(b"\0")[:-2] + bytes(64))
    assert "damaged or cut short" in reason(content)


def extended(values: np.ndarray, **tags: Any) -> bytes:
    frame = bytes(imagecodecs.jpeg_encode(values, level=99, bitspersample=12))
    return encapsulated(values, uid.JPEGExtended12Bit, frame, **tags)


@pytest.mark.parametrize("stored", [8, 10, 12, 16])
@pytest.mark.parametrize("write", [extended, *WRITERS])
def test_a_stream_of_12_bits_is_believed_whatever_the_header_says(
    write: Callable[..., bytes], stored: int
) -> None:
    bright = BREAST.copy()
    bright[140:160, 40:60] = 4090  # beyond 10 bits
    expected = pixels(plain(bright, **WINDOW))
    shown = pixels(write(bright, BitsStored=stored, HighBit=stored - 1, **WINDOW))
    assert np.abs(shown - expected).max() <= (3 if write is extended else 0)


@pytest.mark.parametrize("write", [extended, dicoms.jpeg_lossless, jpeg_ls, dicoms.jpeg_2000])
def test_a_stream_of_12_bits_is_believed_even_where_the_header_has_too_few_to_hold_it(
    write: Callable[..., bytes],
) -> None:
    content = write(BREAST, **WINDOW)
    small = with_frame(content, bytes, BitsAllocated=8, BitsStored=8, HighBit=7)
    assert likeness(small) <= 3


def test_signed_values_have_the_sign_where_the_stream_has_it() -> None:
    signed = BREAST.astype(np.int16) - 2048
    frame = imagecodecs.jpeg_encode(
        signed.view(np.uint16) & 0x0FFF, lossless=True, bitspersample=12, predictor=1
    )
    window = {"WindowCenter": 0, "WindowWidth": 4096}
    for stored in (10, 12, 16):
        content = encapsulated(
            signed, uid.JPEGLosslessSV1, bytes(frame), BitsStored=stored, HighBit=stored - 1,
            **window,
        )  # fmt: skip
        assert likeness(content) == 0


def test_baseline_jpeg_of_8_bits_is_read() -> None:
    small = (BREAST >> 4).astype(np.uint8)
    frame = bytes(imagecodecs.jpeg_encode(small, level=98))
    window = {"WindowCenter": 128, "WindowWidth": 256}
    shown = pixels(encapsulated(small, uid.JPEGBaseline8Bit, frame + bytes(40), **window))
    assert np.abs(shown - pixels(plain(small, **window))).max() <= 3


# Film, masks, crops

FILM = half_breast(640, 500)


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "RG", "BodyPartExamined": "BREAST"},
        {"Modality": "RG", "ViewPosition": "MLO"},
        {"Modality": "RG", "SeriesDescription": "L CC"},
        {"Modality": "CR", "BodyPartExamined": "Breast", "ViewPosition": "CC"},
        {"Modality": "DX", "BodyPartExamined": "BREAST", "PatientOrientation": "MLO"},
    ],
)
def test_a_mammogram_of_a_film_or_plate_is_read_and_noted(tags: dict[str, Any]) -> None:
    mammogram = read_mammogram(plain(FILM, **tags), 640)
    assert mammogram.description.secondary_capture


def test_the_breast_may_be_named_by_its_code() -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-04000", "SRT", "Breast"
    tags = {"Modality": "DX", "ViewPosition": "CC", "AnatomicRegionSequence": [region]}
    assert read_mammogram(plain(FILM, **tags), 64).description.secondary_capture


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "RG"}, "a scanned film (RG), not a mammogram (MG), and names neither"),
        (
            {"Modality": "RG", "BodyPartExamined": "CHEST", "ViewPosition": "CC"},
            "scanned film (RG)",
        ),
        ({"Modality": "CR", "BodyPartExamined": "BREAST"}, "a plain radiograph (CR)"),
        ({"Modality": "CR", "ViewPosition": "CC"}, "a plain radiograph (CR)"),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "AT"}, "radiograph (DX)"),
    ],
)
def test_other_radiographs_are_refused_by_their_name(tags: dict[str, Any], expected: str) -> None:
    assert expected in reason(plain(FILM, **tags))


@pytest.mark.parametrize(
    "part",
    [
        "LBREAST", "RBREAST", "L BREAST", "BREAST_L", "BREAST, RIGHT", "Left Breast", "BREASTS",
        "BOTH BREASTS", "BILATERAL BREAST", "MAMMA", "MAMMAE", "MAMMO",
        "MAMMOGRAPHY", "MAMA", "SEIN", "BREAST ",
    ],
)  # fmt: skip
def test_the_breast_is_known_by_the_names_that_makers_give_it(part: str) -> None:
    content = with_element("BodyPartExamined", "LO", part.ljust(16).encode(), FILM)
    ds = pydicom.dcmread(io.BytesIO(content))
    ds.Modality, ds.ViewPosition = "CR", "CC"
    assert read_mammogram(saved(ds), 64).description.secondary_capture


@pytest.mark.parametrize("part", ["BREASTBONE", "BREAST BONE", "CHEST", "BRUSTKORB", "L", "MAM"])
def test_what_only_sounds_like_a_breast_is_none(part: str) -> None:
    tags = {"Modality": "DX", "ViewPosition": "CC", "BodyPartExamined": part}
    assert "another body part than the breast" in reason(plain(FILM, **tags))


@pytest.mark.parametrize("code", ["80248007", "73056007", "63762007", "T-04020"])
def test_one_breast_has_a_code_of_its_own_and_so_have_both(code: str) -> None:
    region = Dataset()
    region.CodeValue = code
    tags = {"Modality": "DX", "ViewPosition": "CC", "AnatomicRegionSequence": [region]}
    assert read_mammogram(plain(FILM, **tags), 64).description.secondary_capture


PART, POSITION = "(BodyPartExamined)", "(ViewPosition)"


@pytest.mark.parametrize(
    ("tags", "lacking", "there"),
    [
        ({}, [f"neither the breast {PART}", POSITION], []),
        ({"BodyPartExamined": "BREAST"}, [POSITION], [PART]),
        ({"ViewPosition": "CC"}, [f"does not name the breast {PART}"], [POSITION]),
        (
            {"BodyPartExamined": "HAND", "ViewPosition": "CC"},
            [f"another body part than the breast {PART}"],
            [POSITION, "HAND"],
        ),
        ({"BodyPartExamined": "HAND"}, [f"another body part than the breast {PART}", POSITION], []),
    ],
)
@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
def test_the_refusal_of_a_film_or_plate_says_what_its_header_lacks(
    modality: str, tags: dict[str, Any], lacking: list[str], there: list[str]
) -> None:
    content = plain(FILM, Modality=modality, **tags)
    if modality == "RG" and tags in ({"BodyPartExamined": "BREAST"}, {"ViewPosition": "CC"}):
        read_mammogram(content, 64)  # of a film one of the two is enough
        return
    found = reason(content)
    assert f"({modality}), not a mammogram (MG), and " in found
    assert [part for part in lacking if part not in found] == []
    assert [part for part in there if part in found] == []


def blobs(height: int, width: int, size: float = 6, share: float = 0) -> np.ndarray:
    """True in spots of an intricate outline, for half the picture or less."""
    noise = np.random.default_rng(7).normal(size=(height, width)).astype(np.float32)
    blurred: np.ndarray = cv2.GaussianBlur(noise, (0, 0), size)
    spots: np.ndarray = blurred > share * blurred.std()
    return spots


def lossy_mask(mask: np.ndarray, level: int = 75, **tags: Any) -> bytes:
    frame = bytes(imagecodecs.jpeg_encode(mask.astype(np.uint8), level=level))
    return encapsulated(mask.astype(np.uint8), uid.JPEGBaseline8Bit, frame, **tags)


@pytest.mark.parametrize(("size", "share"), [(2, 0), (6, 1.5)])
@pytest.mark.parametrize(
    "write", [plain, dicoms.rle, dicoms.jpeg_lossless, dicoms.jpeg_2000, lossy_mask]
)
def test_a_mask_is_none_however_intricate_its_outlines(
    write: Callable[..., bytes], size: int, share: float
) -> None:
    """They are counted before areas are averaged."""
    white = 255 if write is lossy_mask else 4095
    mask = np.where(blobs(400, 300, size, share), white, 0).astype(np.uint16)
    for long_side in (400, 190):
        with pytest.raises(UnreadableDicom, match="it is a mask"):
            read_mammogram(write(mask), long_side)


def test_a_mask_is_refused_in_jpeg_2000_of_which_levels_are_left_out() -> None:
    mask = np.where(blobs(1200, 900, 10, 1.2), 4095, 0).astype(np.uint16)
    with pytest.raises(UnreadableDicom, match="it is a mask"):
        read_mammogram(dicoms.jpeg_2000(mask), 300)


def test_a_film_in_jpeg_2000_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], dicom.jpeg_2000._decode_jpeg_2000

    def counted(*about: Any) -> np.ndarray:
        decoded.append(about)
        return decode(*about)

    monkeypatch.setattr(dicom.jpeg_2000, "_decode_jpeg_2000", counted)
    read_mammogram(dicoms.jpeg_2000(half_breast(1200, 900)), 300)
    assert len(decoded) == 1


def test_a_mask_is_refused_with_padding_around_it() -> None:
    mask = np.where(blobs(300, 240, 3), 3000, 0).astype(np.uint16)
    padded = np.pad(mask, 40, constant_values=4095)
    assert "it is a mask" in reason(plain(padded, PixelPaddingValue=4095))


@pytest.mark.parametrize("write", [plain, dicoms.jpeg_lossless, dicoms.jpeg_2000])
@pytest.mark.parametrize("shift", [8, 9, 10])
def test_a_film_of_few_greys_is_no_mask(write: Callable[..., bytes], shift: int) -> None:
    """From twelve of them down to three."""
    few = (half_breast(400, 300) >> shift) << shift
    for long_side in (400, 190):
        assert read_mammogram(write(few, **WINDOW), long_side).pixels.max() > 90


def test_a_film_in_lossy_jpeg_is_no_mask_for_its_label() -> None:
    film = (half_breast(400, 320) >> 4).astype(np.uint8) // 5  # faint
    film[10:50, 250:310] = 255
    read_mammogram(lossy_mask(film), 400)


def test_the_sample_of_a_film_that_is_halved_has_values_as_they_are_stored() -> None:
    film = half_breast(640, 512)
    content = io.BytesIO(plain(film))
    header, ds = dicom.header.read_header(content)
    small, sampled = dicom.pixels.decode(header, ds, content, 160)
    assert small.shape == (160, 128)
    np.testing.assert_array_equal(sampled, film[::2, ::2])


@pytest.mark.parametrize("write", [plain, dicoms.rle])
@pytest.mark.parametrize("tags", [{}, {"SOPClassUID": uid.SecondaryCaptureImageStorage}])
def test_a_mask_is_no_mammogram(write: Callable[..., bytes], tags: dict[str, Any]) -> None:
    y, x = np.mgrid[:1400, :1000]
    mask = np.where(np.hypot(x - 400, y - 700) < 150, 255, 0).astype(np.uint8)
    assert "it is a mask" in reason(write(mask, **tags))
    assert "it is a mask" in reason(
        write(mask, **tags, **{"WindowCenter": 128, "WindowWidth": 255})
    )


def test_a_dark_film_with_a_small_breast_is_no_mask() -> None:
    values = np.zeros((1000, 800), np.uint16)
    values[400:600, :150] = half_breast(200, 150) // 100  # 1 % of the picture, 30 greys
    values[0, 0] = 65535  # a dead pixel
    read_mammogram(plain(values, BitsStored=16, HighBit=15), 1000)


@pytest.mark.parametrize("modality", ["MG", "RG"])
def test_a_crop_of_a_film_is_no_mammogram(modality: str) -> None:
    tags = {"Modality": modality, "BodyPartExamined": "BREAST"}
    if modality == "MG":
        tags["SOPClassUID"] = uid.SecondaryCaptureImageStorage
    assert "too few for a scanned film" in reason(plain(half_breast(590, 400), **tags))
    read_mammogram(plain(half_breast(600, 400), **tags), 64)


@pytest.mark.parametrize(
    ("description", "expected"),
    [("cropped images", "a piece cut out of a film"), ("ROI mask images", "the mask of a finding")],
)
def test_what_cbis_ddsm_calls_a_crop_or_a_mask_is_refused_at_any_size(
    description: str, expected: str
) -> None:
    tags = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "Modality": "MG"}
    assert expected in reason(plain(FILM, SeriesDescription=description, **tags))
    read_mammogram(plain(FILM, SeriesDescription="full mammogram images", **tags), 64)


# Exposures without a breast, pages of text

PREPROCESS = load_params().preprocess


def prepared_reason(content: bytes) -> str:
    with pytest.raises(UnreadableDicom) as caught:
        prepare(content, PREPROCESS)
    return caught.value.reason


def flat_field(fall: str, brightness: int) -> np.ndarray:
    y, x = np.mgrid[-1:1:150j, -1:1:120j]
    falls = {"none": 0 * x, "heel": 0.2 * x, "to the corners": 0.15 * (x * x + y * y)}
    noise = np.random.default_rng(2).normal(0, 0.02, x.shape)
    field: np.ndarray = brightness * (1 - falls[fall] + noise)
    return field.clip(0, 4095).astype(np.uint16)


@pytest.mark.parametrize("tags", [{}, WINDOW, {"PhotometricInterpretation": "MONOCHROME1"}])
@pytest.mark.parametrize("fall", ["none", "heel", "to the corners"])
def test_a_flat_field_is_refused_by_that_name(fall: str, tags: dict[str, Any]) -> None:
    assert "a flat field" in reason(plain(flat_field(fall, 2000), **tags))
    assert "a flat field" in reason(dicoms.jpeg_2000(flat_field(fall, 1000), **tags))


def test_a_faint_breast_is_no_flat_field_whatever_its_offset() -> None:
    """With a rescale, with a sign, or with no more than the window shows."""
    faint = (BREAST // 100).astype(np.uint16)  # 0 to 30
    above = (faint + 30000).astype(np.uint16)
    tags = {"BitsStored": 16, "HighBit": 15}
    for content in (
        plain(faint, **tags),
        plain(above, RescaleSlope=1, RescaleIntercept=-30000, **tags),
        plain(above, WindowCenter=30016, WindowWidth=33, **tags),
        plain((faint.astype(np.int16) - 30), **tags),
    ):
        assert read_mammogram(content, 300).pixels.max() > 200


def test_tissue_that_fills_the_picture_is_no_flat_field() -> None:
    filled = half_breast(300, 240)[110:190, :70]
    assert filled.min() > 1000
    read_mammogram(plain(filled, **WINDOW), 300)


def page(lines: int = 12, anti_aliased: bool = True) -> np.ndarray:
    """A dose report, black on white."""
    paper = np.full((30 + 20 * lines, 330), 255, np.uint8)
    kind = cv2.LINE_AA if anti_aliased else cv2.LINE_8
    for line in range(lines):
        about = ("Dose report: AGD 1.2 mGy, 28 kV, 85 mAs", (15, 30 + 20 * line))
        cv2.putText(paper, *about, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1, kind)
    return paper


@pytest.mark.parametrize("white_on_black", [False, True])
@pytest.mark.parametrize("anti_aliased", [False, True])
@pytest.mark.parametrize("write", [plain, lossy_mask])
def test_a_page_of_text_is_no_mammogram(
    write: Callable[..., bytes], anti_aliased: bool, white_on_black: bool
) -> None:
    text = page(anti_aliased=anti_aliased)
    found = prepared_reason(write(255 - text if white_on_black else text, Modality="MG"))
    assert "text" in found or "no breast" in found


def test_a_dense_page_of_white_text_is_known_too() -> None:
    dense = np.full((1400, 1000), 0, np.uint8)
    for y in range(60, 1340, 22):
        about = ("Exposure of the left breast: 28 kV, 85 mAs, dose 1.2 mGy, compressed to", (50, y))
        cv2.putText(dense, *about, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1, cv2.LINE_AA)
    assert "page of text" in prepared_reason(plain(dense))


def test_a_film_with_its_greys_the_wrong_way_round_is_no_page() -> None:
    assert prepare(plain((4095 - BREAST).astype(np.uint16)), PREPROCESS).image.mean() > 150


# Windows and tables for other values


EIGHT = (BREAST >> 4).astype(np.uint8)
SIXTEEN = {"BitsStored": 16, "HighBit": 15}


@pytest.mark.parametrize(
    ("values", "tags", "what"),
    [
        (EIGHT, WINDOW, "window"),  # of 12 bits beside 8
        (BREAST >> 2, WINDOW, "window"),
        (BREAST, {"WindowCenter": 128, "WindowWidth": 256}, "window"),  # the other way round
        ((BREAST * 16).astype(np.uint16), {**WINDOW, **SIXTEEN}, "window"),
        (BREAST, {"WindowCenter": -2048, "WindowWidth": 2000}, "window"),
        (BREAST, {"WindowCenter": 2048, "WindowWidth": 200000}, "window"),  # all is one grey
        (BREAST, {"WindowCenter": 600, "WindowWidth": 2}, "window"),
        (EIGHT, {**WINDOW, "VOILUTFunction": "SIGMOID", "WindowWidth": 500}, "window"),
        (EIGHT, {"VOILUTSequence": [lookup_table(RAMP, 0, 12)]}, "VOI lookup table"),
        (BREAST, {"VOILUTSequence": [lookup_table(RAMP[:256], 0, 8)]}, "VOI lookup table"),
        (BREAST, {"WindowCenter": 2048, "WindowWidth": 0}, "window"),
        (BREAST, {"WindowCenter": 2048, "WindowWidth": 400, "VOILUTFunction": "LOG"}, "window"),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_or_table_for_other_values_is_not_used_and_noted(
    values: np.ndarray, tags: dict[str, Any], what: str, photometric: str
) -> None:
    tags = {**tags, "PhotometricInterpretation": photometric}
    found = read_mammogram(plain(values, **tags), 1024)
    assert found.description.ignored == (what,)
    for name in ("WindowCenter", "WindowWidth", "VOILUTSequence", "VOILUTFunction"):
        tags.pop(name, None)
    without = read_mammogram(plain(values, **tags), 1024)
    assert without.description.ignored == ()
    np.testing.assert_array_equal(found.pixels, without.pixels)


def test_a_window_for_other_values_gives_way_to_a_table_for_these() -> None:
    content = plain(
        BREAST, VOILUTSequence=[lookup_table(RAMP, 0, 12)], WindowCenter=30000, WindowWidth=256
    )
    assert likeness(content) <= 1
    assert read_mammogram(content, 64).description.ignored == ("window",)


@pytest.mark.parametrize(
    "window",
    [
        (2048, 4096),
        (3000, 4000),  # dark: the brightest are at 126
        (1500, 900),  # steep: much of it is black or white
        (600, 2400),  # bright
    ],
)
def test_a_window_that_shows_the_breast_is_used_however_dark_or_steep(
    window: tuple[int, int],
) -> None:
    center, width = window
    found = read_mammogram(plain(BREAST, WindowCenter=center, WindowWidth=width), 1024)
    expected = np.clip((BREAST - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    assert found.description.ignored == ()
    assert np.abs(found.pixels - expected).max() < 0.51


# Padding that leaves no picture


@pytest.mark.parametrize(
    "padding",
    [
        (0, 4095),  # everything
        (4095, 0),
        (0, 65535),
        (100, 4095),  # the breast: only the background is left, of one value
        (20, 3200),  # all but a few of the brightest
    ],
)
@pytest.mark.parametrize("write", [plain, dicoms.jpeg_2000])
def test_padding_that_leaves_no_picture_is_not_used_and_noted(
    write: Callable[..., bytes], padding: tuple[int, int]
) -> None:
    value, limit = padding
    tags = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit, **WINDOW}
    assert likeness(write(BREAST, **tags)) == 0
    assert read_mammogram(write(BREAST, **tags), 64).description.ignored == ("padding",)


def test_padding_that_no_pixel_has_is_nothing_to_note() -> None:
    for value in (4095, 70000, -5):
        ds = dataset(BREAST, **WINDOW)
        ds.add_new("PixelPaddingValue", "DS", value)
        assert read_mammogram(saved(ds), 64).description.ignored == ()
        assert likeness(saved(ds)) == 0


def test_padding_that_cannot_be_read_is_noted() -> None:
    content = with_element("PixelPaddingValue", "DS", b"0.5 ")
    assert read_mammogram(content, 64).description.ignored == ("padding",)


# Values of the header


def with_element(keyword: str, vr: str, value: bytes, values: np.ndarray = BREAST) -> bytes:
    """A file whose element has that VR and those bytes, whatever they are."""
    ds = dataset(values, **WINDOW)
    if keyword in ds:
        del ds[keyword]
    content = saved(ds)
    tag = pydicom.tag.Tag(keyword)
    element = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode()
    element += len(value).to_bytes(2, "little") + value
    following = min(other for other in ds.keys() if other > tag)  # noqa: SIM118
    head = following.group.to_bytes(2, "little") + following.element.to_bytes(2, "little")
    at = content.index(head, 132 + 12)
    return content[:at] + element + content[at:]


@pytest.mark.parametrize(
    "name", ["SIGMOID", "Sigmoid", "sigmoid ", "SAMPLED_SIGMOID", "Sampled Sigmoid"]
)
def test_a_sigmoid_is_read_in_any_case(name: str) -> None:
    expected = pixels(plain(BREAST, VOILUTFunction="SIGMOID", **WINDOW))
    shown = pixels(with_element("VOILUTFunction", "CS", name.encode().ljust(16)))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("name", ["LINEAR", "linear", "Linear ", ""])
def test_a_linear_window_is_read_in_any_case(name: str) -> None:
    assert likeness(with_element("VOILUTFunction", "CS", name.encode().ljust(8))) == 0


@pytest.mark.parametrize("name", ["linear_exact", "LINEAR EXACT", "Linear-Exact"])
def test_an_exact_window_is_read_in_any_case(name: str) -> None:
    expected = pixels(plain(BREAST, VOILUTFunction="LINEAR_EXACT", **WINDOW))
    shown = pixels(with_element("VOILUTFunction", "CS", name.encode().ljust(12)))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("start", [132, 128], ids=["from group 2 on", "from DICM on"])
@pytest.mark.parametrize("write", [plain, dicoms.jpeg_2000])
def test_a_file_without_preamble_is_read(write: Callable[..., bytes], start: int) -> None:
    assert likeness(write(BREAST, **WINDOW)[start:]) == 0


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_the_head_of_a_file_is_refused_by_that_name(implicit: bool) -> None:
    ds = dataset(BREAST, **WINDOW)
    stream = io.BytesIO()
    pydicom.dcmwrite(
        stream, pydicom.Dataset(ds), implicit_vr=implicit, little_endian=True,
        force_encoding=True,
    )  # fmt: skip
    content = stream.getvalue()
    assert content.startswith(b"\x08\0")
    assert "without the head of a file" in reason(content)


@pytest.mark.parametrize("content", [b"\x08\0", b"\x02\0\0\0UL", b"DICM", b"\x02\0\x10\0UI" * 50])
def test_what_only_begins_like_one_is_refused_too(content: bytes) -> None:
    reason(content)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("NumberOfFrames", "IS", b"abc "),
        ("RescaleSlope", "DS", b"abc "),
        ("RescaleIntercept", "DS", b"1.2.3 "),
        ("PixelRepresentation", "US", b"\1"),
        ("Rows", "US", b"\1\2\3"),
        ("Rows", "LO", b"Doe^Jane"),
        ("BitsStored", "US", b"\1"),
        ("HighBit", "ZZ", b"\1\0"),
    ],
)
def test_a_needed_value_that_cannot_be_read_is_named(keyword: str, vr: str, value: bytes) -> None:
    found = reason(with_element(keyword, vr, value))
    assert re.search(keyword, found) or "damaged" in found  # a VR that nobody knows
    if vr != "ZZ":
        assert f"its header's {keyword} cannot be read" in found


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("ImageType", "US", b"\1\2\3"),
        ("ViewPosition", "US", b"\1\2\3"),
        ("PatientOrientation", "FD", b"\1\2\3"),
        ("BurnedInAnnotation", "US", b"\1"),
        ("SeriesDescription", "FL", b"\1\2"),
        ("PresentationIntentType", "US", b"\1\2\3"),
        ("PatientID", "US", b"\1\2\3"),
        ("BodyPartExamined", "US", b"\1\2\3"),
        ("FrameType", "US", b"\1\2\3"),
        ("ImageLaterality", "US", b"\1\2\3"),
        ("Laterality", "FD", b"\1\2\3"),
        ("SOPClassUID", "US", b"\1\2\3"),
        ("SOPInstanceUID", "US", b"\1\2\3"),
        ("SamplesPerPixel", "US", b"\1"),
        ("SamplesPerPixel", "LO", b"grey"),
        ("PlanarConfiguration", "LO", b"Doe^Jane"),
        ("PixelPaddingValue", "DS", b"0.5 "),
        ("PixelPaddingValue", "US", b"\1\2\3"),
        ("PixelPaddingValue", "LO", b"none"),
        ("PixelPaddingValue", "DS", b"inf "),
        ("PixelPaddingRangeLimit", "DS", b"0.5 "),
        ("PixelPaddingRangeLimit", "LO", b"Doe^Jane"),
        ("ExtendedOffsetTable", "US", b"\1\2\3"),
    ],
)
def test_a_value_that_is_not_needed_and_cannot_be_read_is_ignored(
    keyword: str, vr: str, value: bytes
) -> None:
    assert likeness(with_element(keyword, vr, value)) == 0


@pytest.mark.parametrize(
    ("keyword", "value"), [("WindowCenter", b"abc "), ("WindowWidth", b"4,5 ")]
)
def test_a_window_that_cannot_be_read_is_as_none(keyword: str, value: bytes) -> None:
    np.testing.assert_array_equal(pixels(with_element(keyword, "DS", value)), pixels(plain(BREAST)))


@pytest.mark.parametrize("keyword", ["BitsStored", "HighBit"])
def test_bits_that_cannot_be_read_do_not_matter_to_a_stream(keyword: str) -> None:
    content = bytearray(dicoms.jpeg_lossless(BREAST, **WINDOW))
    tag = pydicom.tag.Tag(keyword)
    at = content.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"US")
    content[at + 4 : at + 10] = b"LO\2\0no"
    assert likeness(bytes(content)) == 0


# Whose fault it is


@pytest.mark.parametrize(
    ("module", "name", "write"),
    [
        (dicom.header, "_read_grey_facts", plain),
        (dicom.header, "read_view", plain),
        (dicom.header, "read_voi_lut", plain),
        (dicom.reader, "downscale", plain),
        (dicom.reader, "apply_window", plain),
        (dicom.pixels, "extend_sign", plain),
        (dicom.pixels, "_join_fragments", dicoms.jpeg_lossless),
        (dicom.jpeg, "read_jpeg_heading", dicoms.jpeg_lossless),
        (dicom.pixels, "extend_sign", dicoms.jpeg_lossless),
        (dicom.rle, "slice_rows", dicoms.rle),
        (dicom.jpeg_header, "_huffman_tables", dicoms.jpeg_lossless),
        (dicom.jpeg_2000, "get_j2k_parameters", dicoms.jpeg_2000),
    ],
)
@pytest.mark.parametrize(
    "error", [AttributeError, KeyError, ValueError, OSError, ZeroDivisionError]
)
def test_a_fault_of_ours_is_not_taken_for_one_of_the_file(
    module: ModuleType,
    name: str,
    write: Callable[..., bytes],
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = write(BREAST, **WINDOW)

    def wrong(*arguments: object, **options: object) -> None:
        raise error("ours")

    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(error, match="ours"):
        read_mammogram(content, 64)


def test_a_fault_of_ours_in_a_lookup_table_is_not_taken_for_one_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = plain(BREAST, VOILUTSequence=[lookup_table(RAMP, 0, 12)])
    monkeypatch.setattr(dicom.display, "_bits", lambda *arguments: dict[str, int]()["no such key"])
    with pytest.raises(KeyError):
        read_mammogram(content, 64)


def test_a_disk_that_fails_while_a_file_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(plain(BREAST))

    def fails(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(dicom.reader, "decode", fails)
    with pytest.raises(UnreadableDicom, match="cannot be read \\(Input/output error\\)"):
        read_mammogram(path, 64)


# Who she is


def test_the_patient_is_told_apart_but_not_told(tmp_path: Path) -> None:
    one, two = tmp_path / "1.dcm", tmp_path / "2.dcm"
    one.write_bytes(plain(BREAST, PatientID="17 "))
    two.write_bytes(dicoms.jpeg_2000(BREAST, PatientID="18"))
    first, second = (read_mammogram(path, 64) for path in (one, two))
    assert first.description.patient not in (None, second.description.patient)
    assert (read_patient(one), read_patient(two)) == (
        first.description.patient,
        second.description.patient,
    )
    assert str(first.description.patient) not in repr(first)
    assert read_mammogram(plain(BREAST, PatientID=""), 64).description.patient is None
    assert read_patient(tmp_path / "nowhere.dcm") is None


@pytest.mark.parametrize("slope", [1, -1])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("by", ["window", "table"])
def test_padding_is_black_whichever_way_the_grey_scale_runs(
    slope: int, photometric: str, by: str
) -> None:
    shown = half_breast()
    turned = (slope < 0) != (photometric == "MONOCHROME1")
    pixels = (4095 - shown if turned else shown).astype(np.uint16)
    pixels[:, -60:] = 4095 if slope < 0 else 0  # a value that is no image
    tags: dict[str, object] = {"PixelPaddingValue": int(pixels[0, -1])}
    if by == "window":
        intercept = 4095 if slope < 0 else 0
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
        tags |= {"WindowCenter": 2048, "WindowWidth": 4096}
    else:
        table = np.arange(4096)[::slope].astype(np.uint16)
        tags["VOILUTSequence"] = [lookup_table(table, 0, 12)]
    found = read_mammogram(plain(pixels, PhotometricInterpretation=photometric, **tags), 1024)
    assert found.pixels[:, -60:].max() <= found.pixels[:, :-60].min() + 2
    plainly = read_mammogram(plain(shown, WindowCenter=2048, WindowWidth=4096), 1024).pixels
    assert abs(found.pixels[:, :-60].astype(int) - plainly[:, :-60]).max() <= 1


@pytest.mark.parametrize("said", ["Chest AT bedside", "CONTRAST 20 ML", "Knee LM", "Hand FB"])
def test_a_film_of_something_else_is_no_mammogram_for_a_word_of_its_description(said: str) -> None:
    film = plain(half_breast(900, 720), Modality="RG", SeriesDescription=said)
    with pytest.raises(UnreadableDicom, match="names neither the breast"):
        read_mammogram(film, 1024)


@pytest.mark.parametrize(
    ("said", "side"),
    [("MAMMO R2 CAD", None), ("level L2 proc", None), ("L CC", "L"), ("MAMMO RIGHT", "R")],
)
def test_a_letter_beside_a_digit_is_no_side(said: str, side: str | None) -> None:
    assert (
        read_mammogram(plain(half_breast(), SeriesDescription=said), 64).description.laterality
        == side
    )
