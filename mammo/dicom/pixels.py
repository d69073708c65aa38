"""Decoding the pixels of a mammogram, each transfer syntax by the decoder measured fastest for it.

JPEG 2000, high-throughput or not, goes to Pillow, which can leave the finest levels of the wavelet
undecoded. Lossless JPEG goes to our own decoder, which refuses damaged streams; other JPEG, JPEG-LS
and RLE go to imagecodecs, all else to pydicom. `benchmarks/decode.py` measures them against others.
A stream whose size is not that of its header is refused before a pixel is allocated. How many bits
a stream has, it knows itself; the header's BitsStored is asked only where there is none.

Only what a library raises inside a call of it is taken for damage of the file.
"""

import struct

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from mammo.dicom.container import DAMAGED, Content, find_pixel_data
from mammo.dicom.errors import DamagedStream, UnreadableDicom
from mammo.dicom.header import Header
from mammo.dicom.jpeg import JPEG, JPEG_LS, decode_jpeg
from mammo.dicom.jpeg_2000 import decode_and_sample_jpeg_2000
from mammo.dicom.picture import choose_sampling_step, sample
from mammo.dicom.rle import decode_rle
from mammo.dicom.rows import Rows, damage_on, extend_sign
from mammo.dicom.values import PARSING
from mammo.imaging.downscale import halve

_LITTLE_ENDIAN = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
}
_JPEG_2000 = {
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
}
_BAND = 64  # rows that are halved at a time, a power of two
_ITEM = b"\xfe\xff\x00\xe0"  # the tag before each fragment


def decode(
    header: Header, dataset: pydicom.Dataset, content: Content, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Decode the stored values, at full size or halved as often as is of no harm.

    Args:
        header: the checked facts of `dataset`.
        dataset: of the same file.
        content: the file.
        smallest: pixels that the longer side must keep at least.

    Returns:
        (height, width), whole numbers, not to be written to; both sides halved once or more where
        that leaves enough. And a sample of the values as they are stored, in two dimensions; of
        JPEG 2000 as they were halved, where it is clear that these are not of two values only.

    Raises:
        UnreadableDicom: the syntax is not supported, or the data are cut short or damaged.
    """
    syntax = uid.UID(header.description.transfer_syntax)
    own = syntax in _JPEG_2000 | JPEG | JPEG_LS or syntax == uid.RLELossless
    if not (own or _pydicom_decodes(syntax)):
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise UnreadableDicom(f"its pixels are encoded as {name}, which is not supported")
    try:
        return _decode(header, dataset, content, smallest)
    except DamagedStream:
        raise UnreadableDicom(DAMAGED) from None


def _decode(
    header: Header, dataset: pydicom.Dataset, content: Content, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    syntax = uid.UID(header.description.transfer_syntax)
    stream, length = find_pixel_data(dataset, content)
    if syntax in _LITTLE_ENDIAN:
        return _halve_by_bands(_read_uncompressed(header, stream, length), header, smallest)
    if syntax in _JPEG_2000:
        return decode_and_sample_jpeg_2000(
            header, bytes(_join_fragments(stream.read(length))), smallest
        )
    if syntax == uid.RLELossless:
        return _halve_by_bands(
            decode_rle(header, _join_fragments(stream.read(length))), header, smallest
        )
    if syntax in JPEG | JPEG_LS:
        frame = _join_fragments(stream.read(length))
        return _halve_by_bands(*decode_jpeg(header, syntax, frame), smallest)
    with damage_on(*PARSING):
        pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True)
    return pixels, sample(pixels)


def _pydicom_decodes(syntax: uid.UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _join_fragments(value: bytes) -> memoryview:
    """The stream of the only frame: its fragments (PS3.5 A.4), not copied if there is but one."""
    view, fragments, at = memoryview(value), [], 0
    while at + 8 <= len(view) and view[at : at + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", view, at + 4)
        fragments.append(view[at + 8 : at + 8 + length])
        at += 8 + length
    if len(fragments) < 2:  # the first is the table of offsets
        raise DamagedStream("no fragment")
    return fragments[1] if len(fragments) == 2 else memoryview(b"".join(fragments[1:]))


def _read_uncompressed(header: Header, stream: Content, length: int) -> Rows:
    """The stream's own bytes, read when they are asked for."""
    kind = f"<u{header.bits_allocated // 8}"
    if length < header.height * header.width * header.bits_allocated // 8:
        raise DamagedStream("fewer pixels than the header says")
    band = np.empty((_BAND, header.width), kind)

    def rows(top: int, end: int) -> NDArray[np.unsignedinteger]:
        wanted = band[: end - top] if end - top <= _BAND else np.empty((end, header.width), kind)
        if stream.readinto(wanted.data) != wanted.nbytes:
            raise DamagedStream("cut short since it was opened")
        return wanted

    return rows


def _halve_by_bands(
    rows: Rows, header: Header, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The values, halved as long as the areas' borders stay far below the size wanted, or meet it.

    Band by band, small enough for the processor's cache: each pixel is fetched from memory once.
    """
    unused = header.bits_allocated - header.bits_stored
    times, height, width = 0, header.height, header.width
    # What is padding must be seen at full size; signed bytes, made wider each time, win nothing.
    fit = header.padding is None and header.dtype != np.int8
    while fit and height % 2 == width % 2 == 0 and _BAND >> times > 1:
        height, width = height // 2, width // 2
        if max(height, width) != smallest and max(height, width) < 2 * smallest:
            break
        times += 1
    if times == 0:
        pixels = extend_sign(rows(0, header.height), header.signed, unused)
        return pixels, sample(pixels)
    small = np.empty((header.height >> times, header.width >> times), header.dtype)
    samples, step = [], choose_sampling_step((header.height, header.width))
    for top in range(0, header.height, _BAND):
        end = min(top + _BAND, header.height)
        band = rows(top, end)
        # Before it is looked at: it comes from memory while OpenCV calculates.
        half = halve(band, times)
        extended = extend_sign(band, header.signed, unused)
        small[top >> times : end >> times] = half if extended is band else halve(extended, times)
        samples.append(extended[-top % step :: step, ::step].copy())  # the band is used again
    return small, np.concatenate(samples)
