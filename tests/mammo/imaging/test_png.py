"""Our PNGs are any reader's PNGs."""

import io

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mammo.imaging.png import gray_png
from tests.support.dicoms import half_breast

PICTURES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(PICTURES, st.booleans())
def test_every_pixel_comes_back(pixels, mirrored):
    pixels = pixels[:, ::-1] if mirrored else pixels  # a view of other memory
    png = gray_png(pixels)
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "L")
    np.testing.assert_array_equal(np.asarray(image), pixels)
    read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, pixels)
    assert gray_png(pixels.copy()) == png


def test_a_mammogram_takes_less_room_than_its_pixels():
    pixels = (half_breast(1024, 832) >> 4).astype(np.uint8)
    assert len(gray_png(pixels)) < 0.5 * pixels.size
