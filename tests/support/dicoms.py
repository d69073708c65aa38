"""DICOM files made in memory, right and wrong ones, for the tests of what reads them."""

import io
import struct
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from mammo.datasets.dicom_writer import derive_uid

PERSON = {"PatientName": "Doe^Jane", "PatientID": "4711-0815", "PatientBirthDate": "19540321"}


def half_breast(height: int = 300, width: int = 240, top: int = 3000) -> NDArray[np.uint16]:
    """A breast at the left edge: a bright half ellipse with texture, on a background of 20."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x / (0.6 * width), (y - 0.5 * height) / (0.4 * height))
    texture = np.random.default_rng(5).normal(0, 0.05 * top, (height, width))
    inside = top * (1 - 0.6 * distance**2) + cv2.GaussianBlur(texture, (0, 0), 2)
    return np.where(distance < 1, inside, 20).clip(0, 4095).astype(np.uint16)


def dataset(pixels: NDArray[Any], syntax: str = uid.ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """An uncompressed mammogram of 12 bits (8 for 8-bit pixels), or with a frame put in later."""
    bits = 12 if pixels.itemsize == 2 else 8
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    # As of a good file: another image, another UID.
    ds.file_meta.MediaStorageSOPInstanceUID = derive_uid(pixels.tobytes().hex())
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in {**PERSON, **tags}.items():
        setattr(ds, name, value)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    return ds


def saved(ds: Dataset) -> bytes:
    """The bytes of the file."""
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def plain(pixels: NDArray[Any], **tags: Any) -> bytes:
    """An uncompressed file."""
    return saved(dataset(pixels, **tags))


def encapsulated(pixels: NDArray[Any], syntax: str, frame: bytes, **tags: Any) -> bytes:
    """A file whose pixel data are `frame`."""
    ds = dataset(pixels, syntax, **tags)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return saved(ds)


def lookup_table(values: NDArray[Any], first: int, bits: int) -> Dataset:
    """An item of VOILUTSequence (PS3.3 C.11.2)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 2**16, first, bits])
    item.add_new("LUTData", "OW", values.tobytes())
    return item


def jpeg_2000_frame(pixels: NDArray[np.uint16], levels: int = 5, precision: int = 12) -> bytes:
    """A lossless JPEG 2000 stream of 12 or 16 bits.

    Pillow only writes 16. JPEG 2000 codes v - 2**(precision - 1): shifting the values before and
    correcting the precision in the stream's size marker (T.800 A.5.1) makes it one of 12 bits.
    """
    shift = 2**15 - 2 ** (precision - 1)
    stream = io.BytesIO()
    Image.fromarray(pixels + np.uint16(shift)).save(
        stream, "JPEG2000", no_jp2=True, num_resolutions=levels
    )
    frame = bytearray(stream.getvalue())
    frame[42] = precision - 1
    return bytes(frame)


def jpeg_2000(pixels: NDArray[np.uint16], levels: int = 5, **tags: Any) -> bytes:
    """A JPEG 2000 file of 12 bits with `levels` resolutions."""
    frame = jpeg_2000_frame(pixels, levels)
    return encapsulated(pixels, uid.JPEG2000Lossless, frame, **tags)


def htj2k(pixels: NDArray[np.uint16], levels: int = 5, **tags: Any) -> bytes:
    """A file in lossless high-throughput JPEG 2000, with `levels` resolutions."""
    frame = bytes(imagecodecs.htj2k_encode(pixels, resolutions=levels))
    return encapsulated(pixels, uid.HTJ2KLossless, frame, **tags)


def lossless_frame(pixels: NDArray[np.unsignedinteger], bits: int) -> bytes:
    """A stream of lossless JPEG, of 2 to 16 bits."""
    stored = pixels.astype(np.uint8 if bits <= 8 else np.uint16)
    return bytes(imagecodecs.jpeg_encode(stored, lossless=True, bitspersample=bits, predictor=1))


def jpeg_lossless(pixels: NDArray[np.uint16], **tags: Any) -> bytes:
    """A lossless JPEG file of 12 bits."""
    frame = lossless_frame(pixels, 12)
    return encapsulated(pixels, uid.JPEGLosslessSV1, frame, **tags)


def rle(pixels: NDArray[Any], **tags: Any) -> bytes:
    """An RLE file."""
    ds = pydicom.dcmread(io.BytesIO(plain(pixels, **tags)))
    ds.compress(uid.RLELossless, generate_instance_uid=False)
    return saved(ds)


def rle_frame(*planes: bytes) -> bytes:
    """An RLE frame of segments that are taken as they are."""
    starts = np.cumsum([64, *(len(plane) for plane in planes[:-1])])
    header = struct.pack("<16I", len(planes), *starts, *[0] * (15 - len(planes)))
    return header + b"".join(planes)
