"""What the decoders share: rows of stored values, their sign, and damage that a library reports."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mammo.dicom.errors import DamagedStream

Rows = Callable[[int, int], NDArray[np.unsignedinteger]]
"""The stored values from one row up to another, in order, each once; good until the next call."""

OTHER_IMAGE = "its pixel data are another image than its header describes"

IMAGECODECS_ERRORS = (
    RuntimeError,  # the errors of libjpeg-turbo, of CharLS and of its own RLE
    IndexError,
    OverflowError,
    ValueError,  # an output that does not fit
)
"""What imagecodecs raises on damaged pixel data, as its source shows and the fuzzer found."""


@contextmanager
def damage_on(*errors: type[Exception]) -> Iterator[None]:
    """Turn these errors of a library into DamagedStream.

    Only calls of the library belong in the block: an error of our own code must stay one.
    """
    try:
        yield
    except errors:
        raise DamagedStream from None


def slice_rows(pixels: NDArray[np.unsignedinteger]) -> Rows:
    """Give the rows of an image that is decoded already."""
    return lambda top, end: pixels[top:end]


def extend_sign(
    pixels: NDArray[np.unsignedinteger], signed: bool, unused: int
) -> NDArray[np.integer]:
    """Replace the `unused` high bits, which may hold anything, by the sign or zeros."""
    if not signed and int(pixels.max()) >> (8 * pixels.itemsize - unused) == 0:
        return pixels
    extended = pixels.view(f"{'i' if signed else 'u'}{pixels.itemsize}") << unused
    extended >>= unused
    return extended
