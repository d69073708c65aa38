"""New exams merged into a data set: two folders in the layout of data/ become one."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pandera.pandas as pa

from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError
from mammo.data.reading import SHOWN, check_table, read_table
from mammo.data.tables import BREAST_BOXES, IMAGES, LESIONS, TRAIN, image_files

LABELS = "train.csv"
_IDS = {"patient_id", "image_id"}
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
            by its bytes; it names every fault. `into` is not there then.
    """
    labels, faults = _check(new / LABELS, TRAIN)
    if not faults and labels.empty:
        raise UserError(f"{new / LABELS}: there are no rows, so there is nothing to add")
    for name, schema in OPTIONAL.items():
        if (new / name).exists():
            boxes, found = _check(new / name, schema)
            faults += found
            if set(labels) >= _IDS and "image_id" in boxes:
                strangers = set(boxes["image_id"]) - set(labels["image_id"])
                faults += _describe_fault(
                    new / name, f"image_id is not in {new / LABELS}", strangers
                )
    wanted: set[str] = set()
    if set(labels) >= _IDS:
        # A row at fault names its file all the same.
        wanted, sound = set(image_files(labels)), not faults
        known = set(read_table(old / LABELS, TRAIN)["image_id"])
        both = set(labels["image_id"]) & known
        faults += _describe_fault(new / LABELS, "image_id is in the data already", both)
        files = [path for path in (new / IMAGES).rglob("*") if not path.is_dir()]
        # Hidden ones, such as a Mac's .DS_Store, stay behind, as `data check` passes them over.
        files = [path for path in files if not path.name.startswith(".")]
        broken = {str(path.relative_to(new)) for path in files if not path.exists()}
        faults += _describe_fault(new, "symbolic link that leads nowhere", broken)
        present = {str(path.relative_to(new)) for path in files} - broken
        faults += _describe_fault(
            new / LABELS, f"there is no such file in {new}", wanted - present - broken
        )
        if sound:
            faults += _describe_fault(
                new, f"file without a row in {new / LABELS}", present - wanted
            )
        faults += _copies(old / IMAGES, new, wanted & present)
    if faults:
        more = f"\nand {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UserError("\n".join(faults[:SHOWN]) + more)
    shutil.copytree(old, into, symlinks=True, copy_function=_link)
    for path in sorted(wanted):
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(new / path, into / path)
    for name, schema in {LABELS: TRAIN, **OPTIONAL}.items():
        if (new / name).exists():
            _append(into / name, new / name, schema)
    return len(wanted)


def _check(path: Path, schema: pa.DataFrameSchema) -> tuple[pd.DataFrame, list[str]]:
    """The sound rows of a table, and its faults as sentences."""
    table, faults = check_table(path, schema)
    return table, [f"{path}: {fault}" for fault in faults]


def _copies(old: Path, new: Path, wanted: set[str]) -> list[str]:
    """New images that are another one, under another name; only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    added = [new / path for path in sorted(wanted)]
    sizes = {path.stat().st_size for path in added}
    for path in (*(path for path in sorted(old.rglob("*.dcm")) if path.exists()), *added):
        if (size := path.stat().st_size) in sizes:
            by_size.setdefault(size, []).append(path)
    found = []
    for paths in by_size.values():
        seen: dict[bytes, Path] = {}
        for path in paths if len(paths) > 1 else ():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in seen and new in path.parents:
                found.append(f"{path}: the same bytes as {seen[digest]}")
            seen.setdefault(digest, path)
    return sorted(found)


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


def _describe_fault(path: Path, what: str, names: Iterable[str]) -> list[str]:
    """One sentence for all that have the same fault; none without any."""
    at_fault = sorted(names)
    more = f" and {len(at_fault) - 5} more" if len(at_fault) > 5 else ""
    return [f"{path}: {what}: {', '.join(at_fault[:5])}{more}"] if at_fault else []
