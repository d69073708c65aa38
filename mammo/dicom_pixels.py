"""Decoding the pixels of a mammogram, each transfer syntax by the decoder measured fastest for it.

JPEG 2000 goes to Pillow, which can leave the finest levels of the wavelet undecoded; lossless JPEG
and JPEG-LS go to dicomsdl, the segments of RLE to Pillow, all else to pydicom. The C++ of dicomsdl
writes past its buffers where a stream and its header disagree (RLE even within a segment), so it
gets a header of our own making and only streams whose size has been compared with it.
"""

import io
import struct

import dicomsdl
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from mammo.dicom_error import UnreadableDicom
from mammo.dicom_header import Header

_JPEG_2000 = {uid.JPEG2000Lossless, uid.JPEG2000}
_JPEG = {uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless}
_NOT_A_FRAME_HEADER = {0xC4, 0xC8, 0xCC}  # JPEG markers among C0..CF: tables and an extension

dicomsdl.set_loglevel(dicomsdl.LogLevel.DISABLE)  # it prints; errors come as exceptions anyway


def decode(header: Header, dataset: pydicom.Dataset, smallest: int) -> NDArray[np.integer]:
    """Decode the stored values, at full size or at a lower resolution that the encoding offers.

    Args:
        header: the checked facts of `dataset`.
        dataset: with its PixelData.
        smallest: pixels that the longer side must keep at least.

    Returns:
        (height, width), whole numbers; both sides halved once or more for some JPEG 2000.

    Raises:
        UnreadableDicom: the syntax is not supported, or the data are cut short or damaged.
    """
    syntax = uid.UID(header.transfer_syntax)
    if not (syntax in _JPEG_2000 | _JPEG or syntax == uid.RLELossless or _by_pydicom(syntax)):
        name = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise UnreadableDicom(f"its pixels are encoded as {name}, which is not supported")
    unused = header.bits_allocated - header.bits_stored
    try:
        if syntax in _JPEG_2000:
            return _jpeg_2000(header, _frame(dataset), smallest)
        if syntax in _JPEG:
            return _extended(_jpeg(header, _frame(dataset)), header.signed, unused)
        if syntax == uid.RLELossless:
            return _extended(_rle(header, _frame(dataset)), header.signed, unused)
        pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True)
        return pixels
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


def _frame(dataset: pydicom.Dataset) -> bytes:
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


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


def _jpeg(header: Header, frame: bytes) -> NDArray[np.integer]:
    """Lossless JPEG and JPEG-LS by dicomsdl, from a file that holds nothing but this image."""
    precision, height, width, components = _frame_header(frame)
    size = (header.width, header.height)
    if (width, height) != size or components != 1 or precision > header.bits_allocated:
        raise UnreadableDicom("its pixel data are another image than its header describes")
    if b"\xff\xd9" not in frame[-16:]:  # the end-of-image marker; padding may follow
        raise ValueError("a JPEG stream without an end, which decoders would fill up with grey")
    image = dicomsdl.open_memory(_minimal_file(header, frame))
    pixels = np.empty((header.height, header.width), header.dtype)
    image.copyFrameData(0, pixels)
    return pixels


def _frame_header(frame: bytes) -> tuple[int, int, int, int]:
    """Precision, height, width and components from a JPEG frame header (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, (length,) = frame[at + 1], struct.unpack_from(">H", frame, at + 2)
        is_frame = 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME_HEADER
        if is_frame or marker == 0xF7:  # F7: the same segment in JPEG-LS (T.87, C.2.2)
            return struct.unpack_from(">BHHB", frame, at + 4)
        at += 2 + length
    raise ValueError("a JPEG stream without a frame header")


def _minimal_file(header: Header, frame: bytes) -> bytes:
    """A DICOM file with the image's format and `frame`, and nothing else of the original."""
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.UID(header.transfer_syntax)
    image.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = uid.UID("2.25.0")
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = header.height, header.width
    image.BitsAllocated, image.BitsStored = header.bits_allocated, header.bits_stored
    image.HighBit = header.bits_stored - 1
    image.PixelRepresentation = int(header.signed)
    start = io.BytesIO()
    image.save_as(start, enforce_file_format=True)
    frame += b"\0" * (len(frame) % 2)
    # Pixel data of undefined length: an empty offset table, one item, the delimiter (PS3.5 A.4).
    return b"".join(
        [
            start.getvalue(),
            b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff",
            b"\xfe\xff\x00\xe0\0\0\0\0",
            b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)),
            frame,
            b"\xfe\xff\xdd\xe0\0\0\0\0",
        ]
    )


def _rle(header: Header, frame: bytes) -> NDArray[np.integer]:
    """RLE's byte planes (PS3.5 G): PackBits, which Pillow unpacks within bounds."""
    planes, *offsets = struct.unpack_from("<16I", frame)
    if planes != header.bits_allocated // 8:
        raise UnreadableDicom("its pixel data are another image than its header describes")
    ends = [*offsets[1:planes], len(frame)]
    pixels = np.zeros((header.height, header.width), np.dtype(f"u{planes}"))
    for start, end in zip(offsets[:planes], ends, strict=True):  # the most significant first
        # As one long row, since some writers let a run cross from one row to the next.
        row = (header.width * header.height, 1)
        plane = Image.frombytes("L", row, frame[start:end], "packbits", "L")
        if planes > 1:
            pixels <<= 8
        pixels |= np.asarray(plane).reshape(pixels.shape)
    return pixels


def _extended(pixels: NDArray[np.integer], signed: bool, unused: int) -> NDArray[np.integer]:
    """Replace the `unused` high bits, which may hold anything, by the sign or zeros, in place."""
    pixels = pixels.view(f"{'i' if signed else 'u'}{pixels.itemsize}")
    if unused:
        pixels <<= unused
        pixels >>= unused
    return pixels
