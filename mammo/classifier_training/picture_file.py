"""The pictures of a large set, decoded once: one file, which is mapped into memory.

The trials of a tuning, the training after it, and the next retrain on the same images share the
file. It lies in `pictures/` of the store of results (`mammo.kept.result_store`), and like what
is there it may be deleted at any time. Its name is a hash of all that it follows from: the images'
contents, the size, the source and libraries of this module. MAMMOFLOW_PICTURES_GIB says how much
all these files may take; with MAMMOFLOW_STORE=off there are none.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mammo.base.atomic_files import partial_path
from mammo.base.processor import count_cores
from mammo.base.progress import say
from mammo.classifier.picture import load_picture
from mammo.imaging.gray_images import Gray, read_file
from mammo.kept.code_version import code_version, key_of
from mammo.kept.result_store import Store, hash_of, open_store, read_limit

LIBRARIES = ("numpy", "opencv-python-headless")
GIB = 128.0
"""Holds 90,000 pictures of 1536 x 960 pixels."""

_DIGEST = 16  # bytes of the hash of each picture, which follow after all pictures
_BATCH = 256  # pictures that are decoded before they are written


def map_pictures(rois: Sequence[Path], height: int, width: int) -> tuple[str, Gray] | None:
    """Map all pictures of a set into memory; decode them first if nobody has.

    Returns:
        The name of what they hold, by which equal sets are known, and the pictures, (N, height,
        width), which cannot be written to. None if they cannot be kept; a line says why.

    Raises:
        UserError: if an image cannot be read, or MAMMOFLOW_PICTURES_GIB is no size.
    """
    store = open_store()
    if store is None:
        return None
    limit = read_limit("MAMMOFLOW_PICTURES_GIB", GIB)
    size = len(rois) * (height * width + _DIGEST)
    if size > limit:
        say(
            f"{len(rois)} pictures of {height} x {width} take {size / 2**30:.0f} GiB, more than"
            " MAMMOFLOW_PICTURES_GIB: they are decoded again in each epoch"
        )
        return None
    with ThreadPoolExecutor(count_cores()) as pool:
        digests = list(pool.map(lambda path: _digest(path, store), rois))
    key = key_of("pictures", code_version(__name__, LIBRARIES), f"{height} x {width}", *digests)
    path = store.folder / "pictures" / key
    shape = len(rois), height, width
    try:
        with _only_one(path.parent):
            found = _read(path, shape)
            if found is None:
                _make_room(path.parent, limit - size)
                _write(path, rois, height, width)
                found = _read(path, shape)
    except OSError as error:
        say(f"{path.parent}: pictures cannot be kept there ({error.strerror}); going on without")
        return None
    return None if found is None else (key, found)


def _digest(path: Path, store: Store) -> str:
    """A hash of an image file, read only if it is not known."""
    try:
        return hash_of(path, store)[0]
    except OSError:
        return hashlib.sha256(read_file(path)).hexdigest()  # which says what is wrong


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time write to the folder; the lock of one that dies is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process decodes pictures: waiting for them")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path, shape: tuple[int, int, int]) -> Gray | None:
    """Map a file; None if it is not there, or does not hold what was written."""
    count, height, width = shape
    expected = count * (height * width + _DIGEST)
    if not path.exists() or path.stat().st_size != expected:
        return None
    pictures = np.memmap(path, np.uint8, "r", shape=shape)
    digests = np.memmap(path, np.uint8, "r", count * height * width, (count, _DIGEST))
    with ThreadPoolExecutor(count_cores()) as pool:
        if not all(
            a == b.tobytes() for a, b in zip(pool.map(_hash, pictures), digests, strict=True)
        ):
            return None
    os.utime(path)  # the time of last use
    return pictures


def _hash(picture: Gray) -> bytes:
    return hashlib.blake2b(picture.data, digest_size=_DIGEST).digest()


def _write(path: Path, rois: Sequence[Path], height: int, width: int) -> None:
    """Decode the pictures into a file that appears whole or not at all."""
    say(f"decoding {len(rois)} pictures of {height} x {width}, once")
    partial, digests = partial_path(path), b""
    try:
        with ThreadPoolExecutor(count_cores()) as pool, partial.open("wb") as file:
            for start in range(0, len(rois), _BATCH):
                part = rois[start : start + _BATCH]
                for picture in pool.map(lambda roi: load_picture(roi, height, width), part):
                    file.write(picture.tobytes())
                    digests += _hash(picture)
            file.write(digests)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(folder: Path, limit: int) -> None:
    """Remove what was used longest ago until the rest fits, and a killed writer's leavings."""
    found = [(path.stat(), path) for path in folder.iterdir() if path.name != "lock"]
    kept = 0
    for stat, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns, reverse=True):
        kept += stat.st_size
        if path.name.startswith(".") or kept > limit:
            path.unlink()
            kept -= stat.st_size
