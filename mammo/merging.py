"""New exams merged into a data set: two folders in the layout of data/ become one."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from mammo.errors import UserError
from mammo.files import write_text
from mammo.tables import BREAST_BOXES, IMAGES, LESIONS, TRAIN, image_files, read_table

LABELS = "train.csv"
OPTIONAL: dict[str, pa.DataFrameSchema] = {"breast_boxes.csv": BREAST_BOXES, "lesions.csv": LESIONS}


def merge(old: Path, new: Path, into: Path) -> int:
    """Write `old` and `new` as one data set to the folder `into`, which must not exist.

    Nothing of `old` or `new` changes. Files of `old` are linked, not copied, where the disk can.

    Args:
        old: a data set, in the layout of data/.
        new: the same, with images that `old` does not have; its women may be known already.
        into: on the same disk as `old`.

    Returns:
        How many images came with `new`.

    Raises:
        UserError: if `new` is no such data set, or an image of it is in `old` already, by its id or
            by its bytes. `into` may then be half there.
    """
    labels = read_table(new / LABELS, TRAIN)
    if labels.empty:
        raise UserError(f"{new / LABELS}: there are no rows, so there is nothing to add")
    ids = set(labels["image_id"])
    wanted = set(image_files(labels))
    _check_files(new, wanted)
    known = set(read_table(old / LABELS, TRAIN)["image_id"])
    _refuse(new / LABELS, "image_id is in the data already", ids & known)
    for name, schema in OPTIONAL.items():
        if (new / name).exists():
            strangers = set(read_table(new / name, schema)["image_id"]) - ids
            _refuse(new / name, f"image_id is not in {new / LABELS}", strangers)
    _check_bytes(old / IMAGES, new, wanted)
    shutil.copytree(old, into, symlinks=True, copy_function=_link)
    for path in sorted(wanted):
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(new / path, into / path)
    for name, schema in {LABELS: TRAIN, **OPTIONAL}.items():
        if (new / name).exists():
            _append(into / name, new / name, schema)
    return len(wanted)


def _check_files(new: Path, wanted: set[str]) -> None:
    """Every row has its file, every file its row."""
    files = (path for path in (new / IMAGES).rglob("*") if not path.is_dir())
    found = {str(path.relative_to(new)) for path in files}
    _refuse(new / LABELS, f"there is no such file in {new}", wanted - found)
    _refuse(new, f"file without a row in {new / LABELS}", found - wanted)


def _check_bytes(old: Path, new: Path, wanted: set[str]) -> None:
    """No new image is one of the others, under another name; only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    added = [new / path for path in sorted(wanted)]
    sizes = {path.stat().st_size for path in added}
    for path in (*sorted(old.rglob("*.dcm")), *added):
        if (size := path.stat().st_size) in sizes:
            by_size.setdefault(size, []).append(path)
    for paths in by_size.values():
        seen: dict[bytes, Path] = {}
        for path in paths if len(paths) > 1 else ():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in seen and new in path.parents:
                raise UserError(f"{path}: the same bytes as {seen[digest]}")
            seen[digest] = path


def _append(path: Path, addition: Path, schema: pa.DataFrameSchema) -> None:
    """Add the rows of a CSV to another, as text; columns are matched by their names."""
    tables = [
        pd.read_csv(source, dtype=str, keep_default_na=False)
        for source in (path, addition)
        if source.exists()
    ]
    merged = pd.concat(tables, ignore_index=True).fillna("")
    # A new file takes the place of the link: the old data's stays as it is.
    write_text(path, merged.to_csv(index=False, lineterminator="\n"))
    read_table(path, schema)


def _link(source: str, target: str) -> None:
    """A hard link (of a link, to the same), or a copy where the disk has none."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _refuse(path: Path, what: str, names: Iterable[str]) -> None:
    faults = sorted(names)
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{path}: {what}: {', '.join(faults[:5])}{more}")
