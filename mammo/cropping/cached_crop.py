"""`cut_breast`, not done again for an image and a detector that were met before.

What comes of an image is the same with and without the store; only the time differs.
"""

import hashlib
import threading
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.determinism import pin
from mammo.base.processor import read_processor_name
from mammo.base.settings import Crop
from mammo.cropping.find_breast import Roi, cut_breast
from mammo.detector.detector import Detector, load_detector
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import decode_gray, read_file
from mammo.imaging.png import encode_png
from mammo.kept.code_version import code_version, key_of
from mammo.kept.result_store import Store
from mammo.learning.device import choose_device, describe_device

LIBRARIES = (
    "imagecodecs",
    "numpy",
    "opencv-python-headless",
    "torch",
    "torchvision",
    "ultralytics-opencv-headless",
)
"""The libraries that detect, scale and compress."""

_one_at_a_time = threading.Lock()  # a Dask worker may run several tasks in one process


@dataclass(frozen=True)
class Search:
    """How to look for breasts: everything that a result follows from, besides the image."""

    detector: Path  # its folder
    digest: str  # of the detector's files
    settings: Crop
    seed: int
    threads: int  # of torch


def describe_search(detector: Path, settings: Crop, seed: int, threads: int) -> Search:
    """Describe a search by the detector in a folder.

    Raises:
        UserError: a file of the detector is missing.
    """
    files = [read_file(detector / name) for name in NETWORK_FILES]
    digest = hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files))
    return Search(detector, digest.hexdigest(), settings, seed, threads)


def find_and_cut(image: Path, how: Search, store: Store | None) -> tuple[Roi, bytes]:
    """The breast in a preprocessed image, and that part of it as a PNG.

    Raises:
        UserError: the image or the detector cannot be read.
    """
    content = read_file(image)
    key = "" if store is None else _key(content, how)
    kept = None if store is None else store.get(key)
    if kept is not None:
        facts, png = kept
        return Roi(Box(**facts.pop("box")), **facts), png
    pixels = decode_gray(content, image)
    with _one_at_a_time:
        roi, breast = cut_breast(_load(how), pixels, how.settings)
    png = encode_png(breast)
    if store is not None:
        store.put(key, asdict(roi), png)
    return roi, png


def _key(content: bytes, how: Search) -> str:
    return key_of(
        "roi",
        code_version(__name__, LIBRARIES),
        how.digest,
        how.settings.model_dump_json(),
        str(how.threads),
        _describe_computing_device(),
        hashlib.sha256(content).hexdigest(),
    )


@cache
def _describe_computing_device() -> str:
    """The processor or GPU: another one may round differently, so it has results of its own."""
    device = choose_device()
    if device.type == "cuda":
        return " ".join(describe_device(device).values())
    return read_processor_name()


@cache
def _load(how: Search) -> Detector:
    """The detector, in a process that is set up as the stage's own."""
    pin(how.seed, how.threads)
    return load_detector(how.detector)
