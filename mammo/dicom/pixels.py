"""Decoding the pixels of a mammogram, each transfer syntax by the decoder measured fastest for it.

JPEG 2000, high-throughput or not, goes to Pillow, which can leave the finest levels of the wavelet
undecoded. Lossless JPEG goes to our own decoder, which refuses damaged streams; other JPEG, JPEG-LS
and RLE go to imagecodecs, all else to pydicom. `benchmarks/decode.py` measures them against others.
A stream whose size is not that of its header is refused before a pixel is allocated. How many bits
a stream has, it knows itself; the header's BitsStored is asked only where there is none.

Only what a library raises inside a call of it is taken for damage of the file.
"""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from mammo.dicom.container import DAMAGED, Content, pixel_data
from mammo.dicom.errors import DamagedStream, UnreadableDicom
from mammo.dicom.header import Header
from mammo.dicom.jpeg_header import JpegHeading, read_jpeg_heading
from mammo.dicom.picture import may_be_mask, sample, step_of
from mammo.dicom.values import PARSING
from mammo.imaging.downscale import halved

Rows = Callable[[int, int], NDArray[np.unsignedinteger]]
"""The stored values from one row up to another, in order, each once; good until the next call."""

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
_JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
_LOSSLESS_JPEG = {uid.JPEGLossless, uid.JPEGLosslessSV1}
_JPEG = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, *_LOSSLESS_JPEG}

_PILLOWS = (
    OSError,  # its word for whatever OpenJPEG says, and for what is no JPEG 2000
    SyntaxError,  # boxes without the one that is needed
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
_IMAGECODECS = (
    RuntimeError,  # the errors of libjpeg-turbo, of CharLS and of its own RLE
    IndexError,
    OverflowError,
    ValueError,  # an output that does not fit
)
"""What each library raises on damaged pixel data, as its source shows and the fuzzer found. Of
pydicom's decoders see `PARSING`."""

_BAND = 64  # rows that are halved at a time, a power of two
_ANOTHER = "its pixel data are another image than its header describes"
_END = b"\xff\xd9"  # of a JPEG or JPEG-LS stream
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
    own = syntax in _JPEG_2000 | _JPEG | _JPEG_LS or syntax == uid.RLELossless
    if not (own or _by_pydicom(syntax)):
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise UnreadableDicom(f"its pixels are encoded as {name}, which is not supported")
    try:
        return _decoded(header, dataset, content, smallest)
    except DamagedStream:
        raise UnreadableDicom(DAMAGED) from None


def _decoded(
    header: Header, dataset: pydicom.Dataset, content: Content, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    syntax = uid.UID(header.description.transfer_syntax)
    stream, length = pixel_data(dataset, content)
    if syntax in _LITTLE_ENDIAN:
        return _by_halves(_uncompressed(header, stream, length), header, smallest)
    if syntax in _JPEG_2000:
        return _seen_whole(header, bytes(_frame(stream.read(length))), smallest)
    if syntax == uid.RLELossless:
        return _by_halves(_rle(header, _frame(stream.read(length))), header, smallest)
    if syntax in _JPEG | _JPEG_LS:
        frame = _frame(stream.read(length))
        return _by_halves(*_jpeg(header, syntax, frame), smallest)
    with _taken_for_damage(*PARSING):
        pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True)
    return pixels, sample(pixels)


@contextmanager
def _taken_for_damage(*errors: type[Exception]) -> Iterator[None]:
    """Put round a call of a library, and nothing of ours."""
    try:
        yield
    except errors:
        raise DamagedStream from None


def _by_pydicom(syntax: uid.UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _frame(value: bytes) -> memoryview:
    """The stream of the only frame: its fragments (PS3.5 A.4), not copied if there is but one."""
    view, fragments, at = memoryview(value), [], 0
    while at + 8 <= len(view) and view[at : at + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", view, at + 4)
        fragments.append(view[at + 8 : at + 8 + length])
        at += 8 + length
    if len(fragments) < 2:  # the first is the table of offsets
        raise DamagedStream("no fragment")
    return fragments[1] if len(fragments) == 2 else memoryview(b"".join(fragments[1:]))


def _uncompressed(header: Header, stream: Content, length: int) -> Rows:
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


def _seen_whole(
    header: Header, frame: bytes, smallest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """What `_jpeg_2000` gives, and a sample: of another decoding, at full size, if it may be a
    mask's, or has 8 bits as few films have. That takes some four times as long.
    """
    pixels = _jpeg_2000(header, frame, smallest)
    some = sample(pixels)
    halved_by_it = pixels.shape != (header.height, header.width)
    if halved_by_it and (pixels.itemsize == 1 or may_be_mask(some)):
        some = sample(_jpeg_2000(header, frame, max(header.height, header.width)))
    return pixels, some


def _jpeg_2000(header: Header, frame: bytes, smallest: int) -> NDArray[np.integer]:
    """Pillow's decoding, with as many resolution levels left out as `smallest` allows."""
    stream = get_j2k_parameters(frame)
    if "precision" not in stream:
        raise DamagedStream("not a JPEG 2000 stream")
    precision, signed = stream["precision"], stream["is_signed"]
    if precision > 16:
        raise UnreadableDicom(_ANOTHER)
    reduce = 0
    # What is padding must be seen at full size: the levels left out would mix it into the breast.
    while header.padding is None and max(header.width, header.height) >> (reduce + 1) >= smallest:
        reduce += 1
    while True:
        with _taken_for_damage(*_PILLOWS):
            image = Image.open(io.BytesIO(frame), formats=("JPEG2000",))
        if image.size != (header.width, header.height) or image.mode not in ("L", "I;16"):
            raise UnreadableDicom(_ANOTHER)
        image.reduce = reduce  # type: ignore[method-assign, assignment]
        try:
            image.load()
            break
        except _PILLOWS:
            # Fewer levels were encoded than we would leave out, or the stream is damaged.
            if reduce == 0:
                raise DamagedStream("damaged JPEG 2000") from None
            reduce -= 1
    pixels = np.array(image)
    # Pillow scales N bits up to 8 or 16 and lifts signed values by half the range.
    unused = 8 * pixels.itemsize - precision
    pixels >>= unused
    if signed:
        pixels -= pixels.dtype.type(1 << (precision - 1))  # wraps to two's complement
    # The header decides what the bits mean, whatever sign the stream claims.
    return _extended(pixels, header.signed, unused) if signed or header.signed else pixels


def _jpeg(header: Header, syntax: uid.UID, frame: memoryview) -> tuple[Rows, Header]:
    """A JPEG or JPEG-LS stream, by imagecodecs (libjpeg-turbo and CharLS) or ourselves; and the
    header with the bits that the stream has."""
    heading = read_jpeg_heading(frame)
    size = (header.width, header.height)
    if (heading.width, heading.height) != size or heading.components != 1:
        raise UnreadableDicom(_ANOTHER)
    if not 1 <= heading.precision <= 16:
        raise UnreadableDicom(_ANOTHER)
    frame = frame[: _end(frame, heading.scan)]
    allocated = max(header.bits_allocated, 8 if heading.precision <= 8 else 16)
    header = replace(header, bits_allocated=allocated, bits_stored=heading.precision)
    rows = _lossless_rows(frame, heading) if syntax in _LOSSLESS_JPEG else None
    if rows is not None:
        return _narrowed(rows, allocated), header
    by = imagecodecs.jpegls_decode if syntax in _JPEG_LS else imagecodecs.jpeg_decode
    with _taken_for_damage(*_IMAGECODECS):
        decoded = by(frame)  # type: ignore[arg-type]  # its stubs know no memoryview
    pixels = np.asarray(decoded)
    if pixels.shape != (header.height, header.width) or pixels.dtype.kind != "u":
        raise DamagedStream("decoded to another shape than its frame header says")
    return _rows_of(pixels.astype(f"u{allocated // 8}", copy=False)), header


def _end(frame: memoryview, scan: int) -> int:
    """Where a stream ends. What follows, padding or an archive's leavings, is none of its business.

    Within a scan the end's marker cannot occur: there 0xFF is followed by 0, or in JPEG-LS by a
    byte below 0x80 (T.81, B.1.1.5, and T.87, A.1).
    """
    tail = max(scan, len(frame) - 16)  # nearly always there, and there quickly found
    at = bytes(frame[tail:]).rfind(_END)
    if at < 0:
        tail = scan
        at = bytes(frame[tail:]).find(_END)
    if at < 0:
        raise DamagedStream("a JPEG stream without an end, which decoders would fill with grey")
    return tail + at + len(_END)


def _lossless_rows(frame: memoryview, heading: JpegHeading) -> Rows | None:
    """Lossless JPEG, if our decoder knows that kind. Imported late: it takes over a second, which
    only a process that meets such a film should wait."""
    from mammo.dicom.jpeg_lossless import lossless_rows

    return lossless_rows(frame, heading)


def _narrowed(rows: Rows, allocated: int) -> Rows:
    """Values of 16 bits in the 8 or 16 bits that are allocated for them."""
    return rows if allocated == 16 else lambda top, end: rows(top, end).astype(np.uint8)


def _rle(header: Header, frame: memoryview) -> Rows:
    """RLE's byte planes (PS3.5 G); imagecodecs refuses what would run past the image."""
    planes = header.bits_allocated // 8
    if bytes(frame[:4]) != struct.pack("<I", planes):
        raise UnreadableDicom(_ANOTHER)
    values = bytearray(header.height * header.width * planes)
    try:
        decoded = _rle_decoded(frame, planes, values)
    except DamagedStream:
        decoded = _rle_decoded(_without_zeros(frame, planes, header), planes, values)
    if len(decoded) != len(values):
        raise DamagedStream("RLE segments that end before the image does")
    return _rows_of(np.frombuffer(values, f"<u{planes}").reshape(header.height, header.width))


def _rle_decoded(frame: memoryview, planes: int, values: bytearray) -> bytes | bytearray:
    with _taken_for_damage(*_IMAGECODECS):
        return imagecodecs.dicomrle_decode(frame, f"<u{planes}", out=values)  # type: ignore[arg-type]


def _without_zeros(frame: memoryview, planes: int, header: Header) -> memoryview:
    """The frame up to the end of its last plane, if nothing but zeros follows: RLE has no mark of
    an end, so what else follows may belong to a larger image.

    Raises:
        DamagedStream: something else follows.
    """
    (at,) = struct.unpack_from("<I", bytes(frame[:64]).ljust(64, b"\0"), 4 * planes)
    values, wanted = 0, header.height * header.width
    while values < wanted and at + 1 < len(frame):
        head = frame[at]  # PS3.5 G.3.2
        run = head > 128
        values += 0 if head == 128 else 257 - head if run else head + 1
        at += 1 if head == 128 else 2 if run else head + 2
    if values != wanted or bytes(frame[at:]).strip(b"\0"):
        raise DamagedStream("RLE segments that run past the image")
    return frame[:at]


def _rows_of(pixels: NDArray[np.unsignedinteger]) -> Rows:
    return lambda top, end: pixels[top:end]


def _by_halves(
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
        pixels = _extended(rows(0, header.height), header.signed, unused)
        return pixels, sample(pixels)
    small = np.empty((header.height >> times, header.width >> times), header.dtype)
    some, step = [], step_of((header.height, header.width))
    for top in range(0, header.height, _BAND):
        end = min(top + _BAND, header.height)
        band = rows(top, end)
        # Before it is looked at: it comes from memory while OpenCV calculates.
        half = halved(band, times)
        extended = _extended(band, header.signed, unused)
        small[top >> times : end >> times] = half if extended is band else halved(extended, times)
        some.append(extended[-top % step :: step, ::step].copy())  # the band is used again
    return small, np.concatenate(some)


def _extended(
    pixels: NDArray[np.unsignedinteger], signed: bool, unused: int
) -> NDArray[np.integer]:
    """Replace the `unused` high bits, which may hold anything, by the sign or zeros."""
    if not signed and int(pixels.max()) >> (8 * pixels.itemsize - unused) == 0:
        return pixels
    extended = pixels.view(f"{'i' if signed else 'u'}{pixels.itemsize}") << unused
    extended >>= unused
    return extended
