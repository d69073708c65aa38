"""Turn every DICOM file that train.csv names into a small 8-bit image.

    python -m stages.preprocess

Works on all cores that it may use, or on a Dask cluster (`mapping`); how many that are changes no
byte, nor does what the store remembers of the last run. Files that cannot be read
are listed in rejects.csv with the reason. The tables of boxes, which a collection need not have,
are checked and passed on, so that later stages do not hang on the whole of data/.
"""

import os
from collections import Counter
from collections.abc import Hashable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pandera.pandas as pa

from mammo.errors import UserError
from mammo.files import fresh_folder, write_bytes, write_csv, write_json
from mammo.params import Params, Preprocess, load_params
from mammo.preparation import Prepared
from mammo.progress import say, track
from mammo.remembered_images import LIBRARIES, Picture, prepared_picture
from mammo.store import Store, open_store
from mammo.tables import BREAST_BOXES, LESIONS, MANIFEST, REJECTS, TRAIN, read_table
from stages.mapping import over_dask, scheduler
from stages.runner import run_stage

DATA = Path("data")
OUT = Path("outputs/preprocess")

SHOWN = 5
"""Rejected files that a failing stage names."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: facts for the manifest, or the reason against it."""

    facts: dict[str, object] | None
    reason: str
    side_differs: bool = False  # the header names another side than train.csv
    view_differs: bool = False


def run(params: Params, data: Path, out: Path, workers: int, store: Store | None = None) -> None:
    """Prepare every image of `data`/train.csv with `workers` processes, or with Dask's.

    Raises:
        UserError: a table is wrong, or more than max_reject_fraction of the files are unreadable.
    """
    rows = read_table(data / "train.csv", TRAIN)
    if rows.empty:
        raise UserError(f"{data / 'train.csv'}: there are no images in the table")
    records = rows.to_dict("records")
    outcomes = list(
        track(
            _outcomes(records, params.preprocess, data, out, workers, store),
            "preprocess",
            len(records),
        )
    )

    labels = [name for name in MANIFEST.columns if name in rows]
    read = [
        {**{name: row[name] for name in labels}, **outcome.facts}
        for row, outcome in zip(records, outcomes, strict=True)
        if outcome.facts is not None
    ]
    rejects = pd.DataFrame(
        [
            {"patient_id": row["patient_id"], "image_id": row["image_id"], "reason": outcome.reason}
            for row, outcome in zip(records, outcomes, strict=True)
            if outcome.facts is None
        ],
        columns=list(REJECTS.columns),
    )
    _check(rejects, len(records), params.preprocess, data)
    manifest = MANIFEST.validate(pd.DataFrame(read, columns=list(MANIFEST.columns)))
    write_csv(out / "manifest.csv", manifest)
    write_csv(out / "rejects.csv", rejects)
    for schema in (BREAST_BOXES, LESIONS):
        _pass_on(data / str(schema.name), schema, out)
    write_json(
        out / "metrics.json",
        {
            "images": len(manifest),
            "rejects": len(rejects),
            "patients": manifest["patient_id"].nunique(),
            "flipped": int(manifest["flipped"].sum()),
            "side_differs": sum(outcome.side_differs for outcome in outcomes),
            "view_differs": sum(outcome.view_differs for outcome in outcomes),
        },
    )
    say(f"preprocess: {len(manifest)} images, {len(rejects)} rejected")


def _outcomes(
    records: list[dict[Hashable, Any]],
    settings: Preprocess,
    data: Path,
    out: Path,
    workers: int,
    store: Store | None = None,
) -> Iterator[Outcome]:
    """One outcome a record, in order."""
    address = scheduler()
    if address is not None:
        yield from _outcomes_of_dask(records, settings, data, out, store, address)
        return
    work = partial(_prepare_one, settings=settings, data=data, out=out, store=store)
    if workers == 1:
        yield from map(work, records)
        return
    # Not forked from here, where torch and OpenCV may have started threads, but from a server
    # that has imported what the work needs, once for all workers.
    context = get_context("forkserver")
    context.set_forkserver_preload([prepared_picture.__module__])
    done = 0
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        try:
            for outcome in pool.map(work, records):
                done += 1
                yield outcome
        except BrokenProcessPool:
            suspects = ", ".join(str(row["image_id"]) for row in records[done : done + 2 * workers])
            raise UserError(
                f"{data}: a worker process died while it read one of the images {suspects}; the "
                "machine ran out of memory, or the file is damaged: take it out of train.csv"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _outcomes_of_dask(
    records: list[dict[Hashable, Any]],
    settings: Preprocess,
    data: Path,
    out: Path,
    store: Store | None,
    address: str,
) -> Iterator[Outcome]:
    folder = data.resolve()
    pictures = over_dask(
        partial(prepared_picture, settings=settings, store=store),
        (_source(row, folder) for row in records),
        address,
        folder,
        prepared_picture.__module__,
        LIBRARIES,
    )
    for row, picture in zip(records, pictures, strict=True):
        yield _outcome(row, picture or Picture(None, b"", "workers die when they read it"), out)


def _prepare_one(
    row: dict[Hashable, Any], settings: Preprocess, data: Path, out: Path, store: Store | None
) -> Outcome:
    """Read, prepare and write one image, in a worker process."""
    return _outcome(row, prepared_picture(_source(row, data), settings, store), out)


def _source(row: dict[Hashable, Any], data: Path) -> Path:
    return data / "train_images" / str(row["patient_id"]) / f"{row['image_id']}.dcm"


def _outcome(row: dict[Hashable, Any], picture: Picture, out: Path) -> Outcome:
    """Write one image."""
    prepared = picture.prepared
    if prepared is None:
        return Outcome(None, picture.reason)
    path = f"{row['patient_id']}/{row['image_id']}.png"
    write_bytes(out / "images" / path, picture.png)
    return Outcome(
        {"path": path, **_facts(prepared)},
        "",
        side_differs=prepared.laterality not in (None, row["laterality"]),
        view_differs=prepared.view not in (None, row["view"]),
    )


def _facts(prepared: Prepared) -> dict[str, object]:
    place = prepared.placement
    return {
        "stored_width": place.stored_width,
        "stored_height": place.stored_height,
        "width": place.width,
        "height": place.height,
        "flipped": int(place.flipped),
        "transfer_syntax": prepared.transfer_syntax,
        "photometric": prepared.photometric,
    }


def _check(rejects: pd.DataFrame, total: int, settings: Preprocess, data: Path) -> None:
    """Fail if too many files, or all, could not be read: the list itself is lost then."""
    count = len(rejects)
    if count <= settings.max_reject_fraction * total and count < total:
        return
    reason, times = Counter(rejects["reason"]).most_common(1)[0]
    for row in rejects.head(SHOWN).to_dict("records"):
        say(f"rejected {row['patient_id']}/{row['image_id']}.dcm: {row['reason']}")
    raise UserError(
        f"{data / 'train_images'}: {count} of {total} files cannot be read, more than the "
        f"{settings.max_reject_fraction:g} of preprocess.max_reject_fraction allows; most often "
        f"({times} times): {reason}. The first {min(count, SHOWN)} are named above"
    )


def _pass_on(path: Path, schema: pa.DataFrameSchema, out: Path) -> None:
    """Write the checked table; one without rows if the collection has none."""
    columns = list(schema.columns)
    table = read_table(path, schema)[columns] if path.exists() else pd.DataFrame(columns=columns)
    write_csv(out / path.name, table)


def main() -> None:
    """Run the stage in the current folder."""
    params = load_params()
    with fresh_folder(OUT) as out:
        run(params, DATA, out, available_cores(), open_store())


if __name__ == "__main__":
    run_stage(main)
