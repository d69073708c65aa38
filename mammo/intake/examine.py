"""Deciding which images are accepted: each is examined by itself, then all of them for copies.

The preprocess stage and `mammoflow data check` ask the same questions, in the same way.
"""

import errno
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import pandas as pd

from mammo.base.errors import UserError
from mammo.base.settings import Preprocess
from mammo.compute.worker_pool import Failure, WorkerPool
from mammo.data.tables import IMAGES, image_file, image_files
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.header import Description
from mammo.intake.cached_prepare import prepare_cached
from mammo.intake.prepare import Prepared
from mammo.kept.result_store import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS = 300.0
"""Seconds that a file may take: 300 times what the largest mammogram takes on an idle machine,
so that a busy one rejects no more."""

FAILURES = {
    "crashed": "reading it crashes the decoder, twice",
    "hung": f"reading it does not end within {SECONDS:.0f} seconds",
}
TOO_LARGE = "reading it takes more memory than a mammogram should"

SHARED = 4
"""Ids of train.csv that may be one woman's. A PatientID that more of them share was written by an
anonymiser for everybody."""

_SIDES = {"L": "left", "R": "right"}
_IN_DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


@dataclass(frozen=True)
class Examination:
    """The result for one file: facts for the manifest, or the reason why it is rejected."""

    facts: dict[str, object] | None
    reason: str
    side_differs: bool = False  # the header names another side than train.csv
    view_differs: bool = False
    description: Description | None = None  # of an image that was accepted, or is a copy
    picture: str | None = None  # a hash of the prepared image
    copy: bool = False  # of an image further up in train.csv


class ProgramError(RuntimeError):
    """A fault of this program, found while a file was read: it ends the stage, and rejects no file.

    Its traceback says where; what the error itself said is left out, since it may quote a header.
    """


def examine(
    row: dict[Hashable, Any], settings: Preprocess, data: Path, store: Store | None = None
) -> tuple[Examination, bytes | None]:
    """Read and prepare the image of a row of train.csv.

    Returns:
        What became of it, and a PNG; None if it is rejected.

    Raises:
        ProgramError: something that is not the file's fault.
    """
    folder, name = str(row["patient_id"]), str(row["image_id"])
    path = data / image_file(folder, name)
    try:
        _refuse_links_out(path, data)
        picture = prepare_cached(path, settings, store)
    except UnreadableDicom as error:
        return Examination(None, error.reason), None
    except MemoryError:
        return Examination(None, TOO_LARGE), None
    except (UserError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  (it is raised again as ProgramError)
        raise ProgramError(
            f"{type(error).__name__} at {folder}/{name}: a fault of this program, not of the file; "
            "the lines above say where"
        ).with_traceback(error.__traceback__) from None
    prepared = picture.prepared
    if prepared is None:
        return Examination(None, picture.reason), None
    if _differ(prepared.description.laterality, row["laterality"]):
        header_side, table_side = (
            _SIDES[str(prepared.description.laterality)],
            _SIDES[row["laterality"]],
        )
        reason = (
            f"its header says {header_side} breast, train.csv says {table_side}: "
            "mend the one that is wrong"
        )
        return Examination(None, reason, side_differs=True), None
    return _accept(row, f"{folder}/{name}.png", prepared, picture.png), picture.png


def _differ(header: str | None, table: object) -> bool:
    """Whether both say something, and not the same: a table may lack the column."""
    return header is not None and isinstance(table, str) and header != table


def examine_all(
    work: Callable[[dict[Hashable, Any]], Examination],
    records: list[dict[Hashable, Any]],
    workers: int,
) -> Iterator[Examination]:
    """Examine files in processes of their own: a file that crashes or hangs one is rejected.

    Args:
        work: `examine`, or what calls it; picklable.
        records: rows of train.csv.
        workers: processes.

    Returns:
        One outcome a record, in order.
    """
    for outcome in make_reading_pool(work, workers, __name__).map(records):
        yield reject_failure(outcome) if isinstance(outcome, Failure) else outcome


def reject_failure(failure: Failure) -> Examination:
    """Reject a file that crashed or hung the process that read it."""
    return Examination(None, FAILURES[failure.how])


def make_reading_pool(
    work: Callable[[Item], Result], workers: int, module: str
) -> WorkerPool[Item, Result]:
    """Processes that read files: one that a file crashes or hangs costs that file alone.

    Args:
        work: on a file; picklable.
        workers: processes.
        module: with all that `work` needs, imported before the processes are forked.
    """
    return WorkerPool(work, workers, SECONDS, _keep_to_one_thread, preload=(module,))


def _keep_to_one_thread() -> None:
    """There is a process on every core already, so OpenCV needs no more threads."""
    cv2.setNumThreads(1)


def reject_copies(
    records: Sequence[dict[Hashable, Any]], outcomes: Iterable[Examination]
) -> list[Examination]:
    """Reject each image that is there already, by SOPInstanceUID or pixel for pixel.

    The first in the order of train.csv stays. A copy under another patient would be a woman in two
    splits, whichever of the two is right.
    """
    seen: dict[str, dict[Hashable, Any]] = {}
    checked = []
    for row, outcome in zip(records, outcomes, strict=True):
        description = outcome.description
        instance = None if description is None else description.instance
        keys = [key for key in (instance, outcome.picture) if key is not None]
        known = next((key for key in keys if key in seen), None)
        first = row if known is None else seen[known]
        if outcome.facts is not None:
            seen |= {key: first for key in keys if key not in seen}
        if outcome.facts is None or known is None:
            checked.append(outcome)
        else:
            checked.append(_reject_copy(outcome, row, first, by_uid=known == instance))
    return checked


@dataclass(frozen=True)
class Doubt:
    """Women of train.csv who may be one, or one who may be several."""

    sentence: str
    patients: tuple[str, ...]  # ids of train.csv


def find_doubtful_patients(
    records: Sequence[dict[Hashable, Any]], outcomes: Sequence[Examination]
) -> list[Doubt]:
    """Where the headers' PatientID and train.csv's patient_id do not agree who is who.

    A woman under two ids may be in two splits. Nothing is rejected for it: which of the two is
    right only the hospital knows, and headers are often rewritten. What says nothing is left out:
    a PatientID that all ids share, or more than SHARED (an anonymiser's constant); one that is
    shared across sites, which number their patients from 1 on; and several PatientIDs under one id
    where that is so for most ids that have several images (one was given to each exam or file).

    Args:
        records: rows of train.csv.
        outcomes: one a record; only images that were accepted count.
    """
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)  # by site and PatientID
    names: dict[str, set[str]] = defaultdict(set)  # PatientIDs by id
    images: dict[str, int] = defaultdict(int)
    for row, outcome in zip(records, outcomes, strict=True):
        description = outcome.description
        name = None if description is None else description.patient
        if outcome.facts is None or name is None:
            continue
        patient = str(row["patient_id"])
        ids[str(row["site_id"]), name].add(patient)
        names[patient].add(name)
        images[patient] += 1
    shared = {tuple(sorted(group)) for group in ids.values() if 1 < len(group) <= SHARED} - {
        tuple(sorted(names))
    }
    found = [
        Doubt(
            f"the headers give one PatientID to the patients {', '.join(group)} of train.csv: they "
            "may be one woman, in two splits; find out, and give her one patient_id",
            group,
        )
        for group in sorted(shared)
    ]
    several = sorted(patient for patient, known in names.items() if len(known) > 1)
    could = sum(count > 1 for count in images.values())
    if 2 * len(several) > could:
        return found
    return found + [
        Doubt(
            f"the headers give {len(names[patient])} PatientIDs to the images of patient {patient} "
            "of train.csv: they may be of several women; find out whose they are",
            (patient,),
        )
        for patient in several
    ]


def find_files_without_row(data: Path, rows: pd.DataFrame) -> list[Path]:
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
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # `resolve` lets it pass from Python 3.13 on
            raise UnreadableDicom("the file is a symbolic link that leads nowhere") from None
    target = path.resolve()
    inside = target.is_relative_to(data.resolve()) or _IN_DVC_CACHE.search(target.as_posix())
    if not inside:
        raise UnreadableDicom(
            "the file is a symbolic link out of the data folder: put the file itself there"
        )


def _accept(row: dict[Hashable, Any], path: str, prepared: Prepared, png: bytes) -> Examination:
    placement = prepared.placement
    facts: dict[str, object] = {
        "path": path,
        "stored_width": placement.stored_width,
        "stored_height": placement.stored_height,
        "width": placement.width,
        "height": placement.height,
        "flipped": int(placement.flipped),
        "transfer_syntax": prepared.description.transfer_syntax,
        "photometric": prepared.description.photometric,
    }
    return Examination(
        facts,
        "",
        view_differs=_differ(prepared.description.view, row["view"]),
        description=prepared.description,
        picture=hashlib.sha256(png).hexdigest()[:32],  # equal pixels are equal bytes
    )


def _reject_copy(
    outcome: Examination, row: dict[Hashable, Any], first: dict[Hashable, Any], by_uid: bool
) -> Examination:
    what = "has the SOP Instance UID of" if by_uid else "shows, pixel for pixel, the picture of"
    same_woman = row["patient_id"] == first["patient_id"]
    whose = "" if same_woman else f" of another patient, {first['patient_id']}"
    advice = "take the copy out of train.csv" if same_woman else "find out whose it is"
    reason = f"it {what} {first['image_id']}{whose}: {advice}"
    return replace(outcome, facts=None, reason=reason, copy=True)
