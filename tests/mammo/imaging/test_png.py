"""Our PNGs are any reader's PNGs."""

import io
import re

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mammo.imaging.png import encode_png
from tests.imports import ROOT
from tests.support.dicoms import half_breast

PICTURES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(PICTURES, st.booleans())
def test_every_pixel_comes_back(pixels: np.ndarray, mirrored: bool) -> None:
    pixels = pixels[:, ::-1] if mirrored else pixels  # a view of other memory
    png = encode_png(pixels)
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, pixels)
    assert encode_png(pixels.copy()) == png


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20).map(lambda s: (*s, 3))))
def test_every_colour_comes_back(pixels: np.ndarray) -> None:
    image = Image.open(io.BytesIO(encode_png(pixels)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_no_out_is_compressed_by_the_zlib_of_the_operating_system() -> None:
    """OpenCV's PNG would be: see `mammo.imaging.png`."""
    sources = [path for floor in ("mammo", "stages") for path in (ROOT / floor).rglob("*.py")]
    by_opencv = re.compile(r"cv2\.im(write|encode)\(")
    writers = {path.name for path in sources if by_opencv.search(path.read_text())}
    assert writers == {"trainer.py"}  # squares that ultralytics reads, and nobody keeps


def test_a_mammogram_takes_less_room_than_its_pixels() -> None:
    pixels = (half_breast(1024, 832) >> 4).astype(np.uint8)
    assert len(encode_png(pixels)) < 0.5 * pixels.size
