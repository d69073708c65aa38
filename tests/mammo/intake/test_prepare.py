"""From file to prepared image, and where each pixel went."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mammograms import gen_cases

from mammo.base.settings import Preprocess
from mammo.dicom.reader import UnreadableDicom
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box
from mammo.intake.prepare import prepare
from tests.support.dicoms import half_breast, jpeg_2000, plain

SETTINGS = Preprocess(long_side=512, full_decode=False, max_reject_fraction=0)
WINDOW = {"WindowCenter": 1500, "WindowWidth": 3000}


@pytest.mark.parametrize(
    ("view", "path"), [(view, path) for case in gen_cases() for view, path in case.items()]
)
def test_real_films_are_turned_left_with_their_breast_in_its_box(view: str, path: Path) -> None:
    """CBIS-DDSM, by way of the package `mammograms`: RLE, no window, film edges, lead letters."""
    prepared = prepare(path, SETTINGS)
    assert prepared.description.laterality == view[0].upper()
    assert prepared.description.view == view[1:].upper()
    assert prepared.description.transfer_syntax == "1.2.840.10008.1.2.5"
    # The right breast hangs from the right edge of these films.
    assert prepared.placement.flipped == (prepared.description.laterality == "R")
    assert prepared.image.shape[0] == 512
    box = find_breast_box(prepared.image)
    assert box is not None
    assert box.x1 == 0
    assert 0.3 < box.width / prepared.image.shape[1] < 0.7
    assert 0.6 < box.height / prepared.image.shape[0] < 0.95
    # The contrast is neither squeezed by the letters nor blown out.
    tissue = prepared.image[prepared.image > 20]
    assert 60 < np.median(tissue) < 200
    assert (prepared.image == 255).mean() < 0.06


@settings(max_examples=40)
@given(
    width=st.integers(150, 400),
    height=st.integers(200, 500),
    mirrored=st.booleans(),
    compressed=st.booleans(),
    long_side=st.integers(100, 600),
    x=st.floats(0.1, 0.3),
    y=st.floats(0.35, 0.65),
)
def test_a_spot_is_where_the_placement_says(
    width: int, height: int, mirrored: bool, compressed: bool, long_side: int, x: float, y: float
) -> None:
    pixels = half_breast(height, width, top=2000)
    column, row = int(x * width), int(y * height)
    pixels[row - 6 : row + 7, column - 6 : column + 7] = 4095
    if mirrored:
        pixels, column = np.ascontiguousarray(pixels[:, ::-1]), width - 1 - column
    write = jpeg_2000 if compressed else plain
    prepared = prepare(
        write(pixels, WindowCenter=2048, WindowWidth=4096),
        SETTINGS.model_copy(update={"long_side": long_side}),
    )
    placement = prepared.placement
    assert placement.flipped == mirrored
    assert prepared.image.shape == (placement.height, placement.width)
    assert (placement.stored_width, placement.stored_height) == (width, height)
    spot = Box(column - 6, row - 6, column + 7, row + 7)
    there = placement.to_image(spot)
    bright_rows, bright_columns = np.nonzero(prepared.image > 220)
    assert abs(bright_columns.mean() + 0.5 - (there.x1 + there.x2) / 2) < 1
    assert abs(bright_rows.mean() + 0.5 - (there.y1 + there.y2) / 2) < 1
    back = placement.to_stored(there)
    np.testing.assert_allclose(
        [back.x1, back.y1, back.x2, back.y2], [spot.x1, spot.y1, spot.x2, spot.y2], atol=1e-9
    )


def test_mirrored_files_give_the_same_image() -> None:
    pixels = half_breast()
    left = prepare(plain(pixels, ImageLaterality="L", **WINDOW), SETTINGS)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    # The tag says L: the image is believed.
    right = prepare(plain(mirrored, ImageLaterality="L", **WINDOW), SETTINGS)
    np.testing.assert_array_equal(left.image, right.image)
    assert (left.placement.flipped, right.placement.flipped) == (False, True)
    assert left.description.laterality == right.description.laterality == "L"


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDicom, match="no such file"):
        prepare(tmp_path / "none.dcm", SETTINGS)
