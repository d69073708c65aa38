"""Decoding the pixels of a mammogram, each transfer syntax by the decoder measured fastest for it.

JPEG 2000, high-throughput or not, goes to Pillow, which can leave the finest levels of the wavelet
undecoded. Lossless JPEG of large films goes to our own decoder, other JPEG, JPEG-LS and RLE to
imagecodecs, all else to pydicom. `benchmarks/decode.py` measures them against others. Streams whose
size is not their header's are refused before a pixel is allocated.
"""

import io
import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from mammo.dicom_container import Content, pixel_data
from mammo.dicom_error import UnreadableDicom
from mammo.dicom_header import Header
from mammo.jpeg_heading import JpegHeading, read_jpeg_heading
from mammo.scaling import halved

Rows = Callable[[int, int], NDArray[np.unsignedinteger]]
"""The stored values from one row up to another, in order, each once; good until the next call."""

LosslessRows = Callable[[memoryview, JpegHeading], Rows | None]
"""As `jpeg_lossless.lossless_rows`."""

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
_JPEG = {uid.JPEGExtended12Bit, *_LOSSLESS_JPEG}
_LARGE = 2**22
"""Pixels of a film that our own decoder of lossless JPEG is asked for. To start it takes over a
second, once in each process, which smaller films would hardly win back. Digital machines begin at
1914 x 2294, which is more."""

_BAND = 64  # rows that are halved at a time, a power of two
_ITEM = b"\xfe\xff\x00\xe0"  # the tag before each fragment


def decode(
    header: Header, dataset: pydicom.Dataset, content: Content, smallest: int
) -> NDArray[np.integer]:
    """Decode the stored values, at full size or halved as often as is of no harm.

    Args:
        header: the checked facts of `dataset`.
        dataset: of the same file.
        content: the file.
        smallest: pixels that the longer side must keep at least.

    Returns:
        (height, width), whole numbers, not to be written to; both sides halved once or more where
        that leaves enough.

    Raises:
        UnreadableDicom: the syntax is not supported, or the data are cut short or damaged.
    """
    syntax = uid.UID(header.transfer_syntax)
    own = syntax in _JPEG_2000 | _JPEG | _JPEG_LS or syntax == uid.RLELossless
    if not (own or _by_pydicom(syntax)):
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise UnreadableDicom(f"its pixels are encoded as {name}, which is not supported")
    large = header.bits_allocated == 16 and header.width * header.height >= _LARGE
    large_lossless = _our_lossless() if large and syntax in _LOSSLESS_JPEG else None
    try:
        stream, length = pixel_data(dataset, content)
        if syntax in _LITTLE_ENDIAN:
            return _by_halves(_uncompressed(header, stream, length), header, smallest)
        if not own:
            pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True)
            return pixels
        frame = _frame(stream.read(length))
        if syntax in _JPEG_2000:
            return _jpeg_2000(header, bytes(frame), smallest)
        if syntax == uid.RLELossless:
            return _by_halves(_rle(header, frame), header, smallest)
        return _by_halves(_jpeg(header, syntax, frame, large_lossless), header, smallest)
    except (UnreadableDicom, MemoryError):
        raise
    except Exception:
        # Every decoder has errors of its own; all of them mean this.
        raise UnreadableDicom("its pixel data are damaged or cut short") from None


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
        raise ValueError("no fragment")
    return fragments[1] if len(fragments) == 2 else memoryview(b"".join(fragments[1:]))


def _uncompressed(header: Header, stream: Content, length: int) -> Rows:
    """The stream's own bytes, read when they are asked for."""
    kind = f"<u{header.bits_allocated // 8}"
    if length < header.height * header.width * header.bits_allocated // 8:
        raise ValueError("fewer pixels than the header says")
    band = np.empty((_BAND, header.width), kind)

    def rows(top: int, end: int) -> NDArray[np.unsignedinteger]:
        wanted = band[: end - top] if end - top <= _BAND else np.empty((end, header.width), kind)
        if stream.readinto(wanted.data) != wanted.nbytes:
            raise ValueError("cut short since it was opened")
        return wanted

    return rows


def _jpeg_2000(header: Header, frame: bytes, smallest: int) -> NDArray[np.integer]:
    """Pillow's decoding, with as many resolution levels left out as `smallest` allows."""
    stream = get_j2k_parameters(frame)
    precision, signed = stream["precision"], stream["is_signed"]
    reduce = 0
    while max(header.width, header.height) >> (reduce + 1) >= smallest:
        reduce += 1
    while True:
        image = Image.open(io.BytesIO(frame), formats=("JPEG2000",))
        if image.size != (header.width, header.height) or image.mode not in ("L", "I;16"):
            raise UnreadableDicom("its pixel data are another image than its header describes")
        image.reduce = reduce  # type: ignore[method-assign, assignment]
        try:
            image.load()
            break
        except OSError:
            # Fewer levels were encoded than we would leave out, or the stream is damaged.
            if reduce == 0:
                raise
            reduce -= 1
    pixels = np.array(image)
    # Pillow scales N bits up to 8 or 16 and lifts signed values by half the range.
    unused = 8 * pixels.itemsize - precision
    pixels >>= unused
    if signed:
        pixels -= pixels.dtype.type(1 << (precision - 1))  # wraps to two's complement
    # The header decides what the bits mean, whatever sign the stream claims.
    return _extended(pixels, header.signed, unused) if signed or header.signed else pixels


def _jpeg(
    header: Header, syntax: uid.UID, frame: memoryview, large_lossless: LosslessRows | None
) -> Rows:
    """A JPEG or JPEG-LS stream, by imagecodecs (libjpeg-turbo and CharLS) or ourselves."""
    heading = read_jpeg_heading(frame)
    size = (header.width, header.height)
    other = (heading.width, heading.height) != size or heading.components != 1
    if other or heading.precision > header.bits_allocated:
        raise UnreadableDicom("its pixel data are another image than its header describes")
    if b"\xff\xd9" not in bytes(frame[-16:]):  # the end-of-image marker; padding may follow
        raise ValueError("a JPEG stream without an end, which decoders would fill up with grey")
    rows = None if large_lossless is None else large_lossless(frame, heading)
    if rows is not None:
        return rows
    by = imagecodecs.jpegls_decode if syntax in _JPEG_LS else imagecodecs.jpeg_decode
    pixels = np.asarray(by(frame))  # type: ignore[arg-type]  # its stubs know no memoryview
    if pixels.shape != (header.height, header.width) or pixels.dtype.kind != "u":
        raise ValueError("decoded to another shape than its frame header says")
    return _rows_of(pixels.astype(f"u{header.bits_allocated // 8}", copy=False))


def _our_lossless() -> LosslessRows:
    """Imported late, for it takes a second; not where errors are taken for the file's fault."""
    from mammo.jpeg_lossless import lossless_rows

    return lossless_rows


def _rle(header: Header, frame: memoryview) -> Rows:
    """RLE's byte planes (PS3.5 G); imagecodecs refuses what would run past the image."""
    planes = header.bits_allocated // 8
    if struct.unpack_from("<I", frame) != (planes,):
        raise UnreadableDicom("its pixel data are another image than its header describes")
    values = bytearray(header.height * header.width * planes)
    decoded = imagecodecs.dicomrle_decode(frame, f"<u{planes}", out=values)  # type: ignore[arg-type]
    if len(decoded) != len(values):
        raise ValueError("RLE segments that end before the image does")
    return _rows_of(np.frombuffer(values, f"<u{planes}").reshape(header.height, header.width))


def _rows_of(pixels: NDArray[np.unsignedinteger]) -> Rows:
    return lambda top, end: pixels[top:end]


def _by_halves(rows: Rows, header: Header, smallest: int) -> NDArray[np.integer]:
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
        return _extended(rows(0, header.height), header.signed, unused)
    small = np.empty((header.height >> times, header.width >> times), header.dtype)
    for top in range(0, header.height, _BAND):
        end = min(top + _BAND, header.height)
        band = rows(top, end)
        # Before it is looked at: it comes from memory while OpenCV calculates.
        half = halved(band, times)
        extended = _extended(band, header.signed, unused)
        small[top >> times : end >> times] = half if extended is band else halved(extended, times)
    return small


def _extended(
    pixels: NDArray[np.unsignedinteger], signed: bool, unused: int
) -> NDArray[np.integer]:
    """Replace the `unused` high bits, which may hold anything, by the sign or zeros."""
    if not signed and int(pixels.max()) >> (8 * pixels.itemsize - unused) == 0:
        return pixels
    extended = pixels.view(f"{'i' if signed else 'u'}{pixels.itemsize}") << unused
    extended >>= unused
    return extended
