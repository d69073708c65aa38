"""Turn every DICOM file that train.csv names into a small 8-bit image.

    python -m stages.preprocess

Works on all cores that it may use, or on a Dask cluster (`dask_map`); how many that are changes no
byte, nor does what the store remembers of the last run. Files that cannot be read are listed in
rejects.csv with the reason, as are those that crash or hang their decoder, and copies. The tables
of boxes, which a collection need not have, are checked and passed on, so that later stages do not
hang on the whole of data/.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from mammo.base.atomic_files import fresh_folder, partial_path, write_bytes, write_csv, write_json
from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.base.progress import say, track
from mammo.base.settings import Params, Preprocess, load_params
from mammo.compute.dask_map import map_over_dask, read_scheduler_address
from mammo.compute.worker_pool import Failure
from mammo.data.reading import read_table
from mammo.data.tables import BREAST_BOXES, LESIONS, MANIFEST, REJECTS, TRAIN
from mammo.intake.cached_prepare import LIBRARIES
from mammo.intake.examine import (
    Examination,
    examine,
    examine_all,
    find_doubtful_patients,
    find_files_without_row,
    reject_copies,
    reject_failure,
)
from mammo.kept.result_store import Store, open_store
from stages.runner import run_stage

DATA = Path("data")
OUT = Path("outputs/preprocess")

SHOWN = 5
"""Rejected files that a failing stage names."""


def run(params: Params, data: Path, out: Path, workers: int, store: Store | None = None) -> None:
    """Prepare every image of `data`/train.csv with `workers` processes, or with Dask's.

    Without any, the work is done in this process, unprotected: for tests and for debugging.

    Raises:
        UserError: a table is wrong, or more than max_reject_fraction of the files are rejected.
    """
    rows = read_table(data / "train.csv", TRAIN)
    if rows.empty:
        raise UserError(f"{data / 'train.csv'}: there are no images in the table")
    records = rows.to_dict("records")
    found = _examine_rows(records, params.preprocess, data, out, workers, store)
    outcomes = reject_copies(records, track(found, "preprocess", len(records)))
    for row, outcome in zip(records, outcomes, strict=True):
        if outcome.facts is None:  # but written, if it is a copy; half of it, if its process died
            picture = _picture_path(out, row)
            picture.unlink(missing_ok=True)
            partial_path(picture).unlink(missing_ok=True)

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
        _copy_table(data / str(schema.name), schema, out)
    doubts = find_doubtful_patients(records, outcomes)
    write_json(
        out / "metrics.json",
        {
            "images": len(manifest),
            "rejects": len(rejects),
            "patients": manifest["patient_id"].nunique(),
            "flipped": int(manifest["flipped"].sum()),
            **_counts(outcomes),
            "patients_in_doubt": len({one for doubt in doubts for one in doubt.patients}),
            "files_without_row": len(find_files_without_row(data, rows)),
        },
    )
    say(f"preprocess: {len(manifest)} images, {len(rejects)} rejected")


def _counts(outcomes: Sequence[Examination]) -> dict[str, int]:
    """Of how many images something is to be known, by its key in metrics.json."""
    descriptions = [outcome.description for outcome in outcomes if outcome.description is not None]
    return {
        "side_differs": sum(outcome.side_differs for outcome in outcomes),
        "view_differs": sum(outcome.view_differs for outcome in outcomes),
        "duplicates": sum(outcome.copy for outcome in outcomes),
        "secondary_captures": sum(one.secondary_capture for one in descriptions),
        "generated_2d": sum(one.generated_2d for one in descriptions),
        "burned_in_annotation": sum(one.burned_in is True for one in descriptions),
        "header_ignored": sum(bool(one.ignored) for one in descriptions),
    }


def _examine_rows(
    records: list[dict[Hashable, Any]],
    settings: Preprocess,
    data: Path,
    out: Path,
    workers: int,
    store: Store | None,
) -> Iterator[Examination]:
    """One outcome a record, in order."""
    address = read_scheduler_address()
    if address is not None:
        yield from _examine_rows_over_dask(records, settings, data, out, store, address)
        return
    work = partial(_prepare_one, settings=settings, data=data, out=out, store=store)
    yield from examine_all(work, records, workers) if workers else map(work, records)


def _examine_rows_over_dask(
    records: list[dict[Hashable, Any]],
    settings: Preprocess,
    data: Path,
    out: Path,
    store: Store | None,
    address: str,
) -> Iterator[Examination]:
    """The same by a cluster: this process writes what the workers make."""
    folder = data.resolve()
    work = partial(examine, settings=settings, data=folder, store=store)
    found = map_over_dask(work, records, address, folder, examine.__module__, LIBRARIES)
    for row, result in zip(records, found, strict=True):
        yield reject_failure(Failure("crashed")) if result is None else _write(row, *result, out)


def _prepare_one(
    row: dict[Hashable, Any], settings: Preprocess, data: Path, out: Path, store: Store | None
) -> Examination:
    """Read, prepare and write one image, in a worker process."""
    return _write(row, *examine(row, settings, data, store), out)


def _write(
    row: dict[Hashable, Any], outcome: Examination, png: bytes | None, out: Path
) -> Examination:
    if png is not None:
        write_bytes(_picture_path(out, row), png)
    return outcome


def _picture_path(out: Path, row: dict[Hashable, Any]) -> Path:
    return out / "images" / str(row["patient_id"]) / f"{row['image_id']}.png"


def _check(rejects: pd.DataFrame, total: int, settings: Preprocess, data: Path) -> None:
    """Fail if too many files, or all, were rejected: the list itself is not kept then."""
    count = len(rejects)
    if count <= settings.max_reject_fraction * total and count < total:
        return
    reason, times = Counter(rejects["reason"]).most_common(1)[0]
    for row in rejects.head(SHOWN).to_dict("records"):
        say(f"rejected {row['patient_id']}/{row['image_id']}.dcm: {row['reason']}")
    raise UserError(
        f"{data / 'train_images'}: {count} of {total} files are rejected, more than the "
        f"{settings.max_reject_fraction:g} of preprocess.max_reject_fraction allows; most often "
        f"({times} times): {reason}. The first {min(count, SHOWN)} are named above"
    )


def _copy_table(path: Path, schema: pa.DataFrameSchema, out: Path) -> None:
    """Write the checked table; one without rows if the collection has none."""
    columns = list(schema.columns)
    table = read_table(path, schema)[columns] if path.exists() else pd.DataFrame(columns=columns)
    write_csv(out / path.name, table)


def main() -> None:
    """Run the stage in the current folder."""
    params = load_params()
    with fresh_folder(OUT) as out:
        run(params, DATA, out, count_cores(), open_store())


if __name__ == "__main__":
    run_stage(main)
