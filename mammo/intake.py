"""Letting images in: each is looked at by itself, then all of them for copies.

The preprocess stage and `mammoflow data check` ask the same questions here, in the same way.
"""

import hashlib
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from mammo.dicom_error import UnreadableDicom
from mammo.isolation import Lost
from mammo.params import Preprocess
from mammo.preparation import Prepared
from mammo.remembered_images import prepared_picture
from mammo.store import Store
from mammo.tables import IMAGES, image_file, image_files

SECONDS = 300.0
"""That a file may take: some 300 times what the largest mammogram takes on a machine at rest, so
that what is rejected does not hang on what else the machine has to do."""

LOST = {
    "crashed": "reading it crashes the decoder, twice",
    "hung": f"reading it does not end within {SECONDS:.0f} seconds",
}
_SIDES = {"L": "left", "R": "right"}
_IN_DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: facts for the manifest, or the reason against it."""

    facts: dict[str, object] | None
    reason: str
    side_differs: bool = False  # the header names another side than train.csv
    view_differs: bool = False
    secondary_capture: bool = False
    burned_in: bool = False  # the header says that the pixels may name the patient
    instance: str | None = None  # a hash of SOPInstanceUID
    picture: str | None = None  # a hash of the prepared image
    copy: bool = False  # of an image further up in train.csv


def examine(
    row: dict[Hashable, Any], settings: Preprocess, data: Path, store: Store | None = None
) -> tuple[Outcome, bytes | None]:
    """Read and prepare the image of a row of train.csv; a PNG, or None if it is rejected."""
    folder, name = str(row["patient_id"]), str(row["image_id"])
    path = data / image_file(folder, name)
    try:
        _refuse_links_out(path, data)
        picture = prepared_picture(path, settings, store)
    except UnreadableDicom as error:
        return Outcome(None, error.reason), None
    except MemoryError:
        return Outcome(None, "reading it takes more memory than a mammogram should"), None
    prepared = picture.prepared
    if prepared is None:
        return Outcome(None, picture.reason), None
    if prepared.laterality not in (None, row["laterality"]):
        here, there = _SIDES[str(prepared.laterality)], _SIDES[row["laterality"]]
        reason = (
            f"its header says {here} breast, train.csv says {there}: mend the one that is wrong"
        )
        return Outcome(None, reason, side_differs=True), None
    return _accepted(row, f"{folder}/{name}.png", prepared, picture.png), picture.png


def single_threaded() -> None:
    """Keep OpenCV to one thread: there is a process on every core already."""
    cv2.setNumThreads(1)


def lost(how: Lost) -> Outcome:
    """Of a file that took its process along."""
    return Outcome(None, LOST[how.how])


def without_copies(
    records: Sequence[dict[Hashable, Any]], outcomes: Iterable[Outcome]
) -> list[Outcome]:
    """Reject each image that is there already, by SOPInstanceUID or pixel for pixel.

    The first in the order of train.csv stays. A copy under another patient would be a woman in two
    splits, whichever of the two is right.
    """
    seen: dict[str, dict[Hashable, Any]] = {}
    checked = []
    for row, outcome in zip(records, outcomes, strict=True):
        keys = [key for key in (outcome.instance, outcome.picture) if key is not None]
        known = next((key for key in keys if key in seen), None)
        first = row if known is None else seen[known]
        if outcome.facts is not None:
            seen |= {key: first for key in keys if key not in seen}
        if outcome.facts is None or known is None:
            checked.append(outcome)
        else:
            checked.append(_copy(outcome, row, first, by_uid=known == outcome.instance))
    return checked


def files_without_row(data: Path, rows: pd.DataFrame) -> list[Path]:
    """Files in the images' folder that no row of train.csv names, hidden ones aside; sorted.

    Their names may be anything, a patient's included: they must not leave the data's folder.
    """
    named = set(image_files(rows))
    found = (path for path in (data / IMAGES).rglob("*") if path.is_file() or path.is_symlink())
    return sorted(
        path
        for path in found
        if not path.name.startswith(".") and path.relative_to(data).as_posix() not in named
    )


def _refuse_links_out(path: Path, data: Path) -> None:
    """What lies elsewhere may change without DVC's notice. DVC's own links may stay."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a loop
        raise UnreadableDicom("the file is a symbolic link that leads nowhere") from None
    inside = target.is_relative_to(data.resolve()) or _IN_DVC_CACHE.search(target.as_posix())
    if not inside:
        raise UnreadableDicom(
            "the file is a symbolic link out of the data folder: put the file itself there"
        )


def _accepted(row: dict[Hashable, Any], path: str, prepared: Prepared, png: bytes) -> Outcome:
    place = prepared.placement
    facts: dict[str, object] = {
        "path": path,
        "stored_width": place.stored_width,
        "stored_height": place.stored_height,
        "width": place.width,
        "height": place.height,
        "flipped": int(place.flipped),
        "transfer_syntax": prepared.transfer_syntax,
        "photometric": prepared.photometric,
    }
    return Outcome(
        facts,
        "",
        view_differs=prepared.view not in (None, row["view"]),
        secondary_capture=prepared.secondary_capture,
        burned_in=prepared.burned_in,
        instance=prepared.instance,
        picture=hashlib.sha256(png).hexdigest()[:32],  # equal pixels are equal bytes
    )


def _copy(
    outcome: Outcome, row: dict[Hashable, Any], first: dict[Hashable, Any], by_uid: bool
) -> Outcome:
    what = "has the SOP Instance UID of" if by_uid else "shows, pixel for pixel, the picture of"
    same_woman = row["patient_id"] == first["patient_id"]
    whose = "" if same_woman else f" of another patient, {first['patient_id']}"
    advice = "take the copy out of train.csv" if same_woman else "find out whose it is"
    reason = f"it {what} {first['image_id']}{whose}: {advice}"
    return replace(outcome, facts=None, reason=reason, copy=True)
