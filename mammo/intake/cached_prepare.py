"""`prepare`, not done again for a file that was met before.

What comes of a file is the same with and without the store; only the time differs. One thing is
not kept: the hash of PatientID. Such ids are often short numbers, so whoever had the store could
try them all, and no secret that lies beside it would be one. It is read from the header each time.
"""

import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mammo.base.settings import Preprocess
from mammo.dicom.container import MAX_BYTES
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import Description
from mammo.dicom.reader import read_patient
from mammo.imaging.geometry import Placement
from mammo.imaging.png import encode_png
from mammo.intake.prepare import Prepared, prepare
from mammo.kept.code_version import code_version, key_of
from mammo.kept.result_store import Store, hash_of

LIBRARIES = ("imagecodecs", "numba", "numpy", "opencv-python-headless", "pillow", "pydicom")
"""The libraries that decode, scale and compress."""

_NO_PIXELS = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True)
class Picture:
    """The result for a file: the facts and the image as a PNG, or the reason why there is none."""

    prepared: Prepared | None  # without pixels
    png: bytes
    reason: str


def prepare_cached(path: Path, settings: Preprocess, store: Store | None) -> Picture:
    """Prepare a file, or take the kept result of a file with the same content."""
    if store is None:
        return _prepare_now(path, settings)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return _prepare_now(path, settings)
        digest, content = hash_of(path, store)
    except OSError:
        return _prepare_now(path, settings)  # it has words for this
    values = settings.model_dump_json(exclude={"max_reject_fraction"})
    key = key_of("picture", code_version(__name__, LIBRARIES), values, digest)
    kept = store.get(key)
    if kept is not None:
        return _from_facts(*kept, path)
    picture = _prepare_now(path if content is None else content, settings)
    store.put(key, _to_facts(picture), picture.png)
    return picture


def _prepare_now(source: Path | bytes, settings: Preprocess) -> Picture:
    try:
        prepared = prepare(source, settings)
    except UnreadableDicom as error:
        return Picture(None, b"", error.reason)
    return Picture(replace(prepared, image=_NO_PIXELS), encode_png(prepared.image), "")


def _to_facts(picture: Picture) -> dict[str, Any]:
    if picture.prepared is None:
        return {"reason": picture.reason}
    facts = asdict(picture.prepared)
    del facts["image"], facts["description"]["patient"]
    return facts


def _from_facts(facts: dict[str, Any], png: bytes, path: Path) -> Picture:
    if "reason" in facts:
        return Picture(None, b"", facts["reason"])
    described = facts["description"] | {"patient": read_patient(path)}
    description = Description(**described | {"ignored": tuple(described["ignored"])})
    prepared = Prepared(_NO_PIXELS, Placement(**facts["placement"]), description)
    return Picture(prepared, png, "")
