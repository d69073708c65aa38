"""How much two files of the same out differ, if their bytes differ.

Images may differ by a few grey levels; tables and JSON must have equal cells and values; of any
other file only the bytes are compared.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

Likeness = Literal["identical", "alike", "different"]
"""`alike` is another file that says the same: equal cells or values, or pixels within the bound."""


@dataclass(frozen=True)
class FileComparison:
    """How alike two files are, and their difference in words (empty if identical)."""

    likeness: Likeness
    detail: str = ""


IDENTICAL = FileComparison("identical")


def find_least_alike(comparisons: list[FileComparison]) -> Likeness:
    """The likeness of the least alike of several files; "identical" if there are none."""
    order: list[Likeness] = ["identical", "alike", "different"]
    return max((c.likeness for c in comparisons), key=order.index, default="identical")


def compare_files(then: Path, now: Path, kind: str, pixels: int) -> FileComparison:
    """Compare two files.

    Args:
        then: the file of the record.
        now: the file made again.
        kind: the suffix of the file where it belongs: `.json`, `.csv`, `.png`.
        pixels: grey levels that each pixel of an image may be off by.
    """
    if then.read_bytes() == now.read_bytes():
        return IDENTICAL
    try:
        match kind:
            case ".png":
                return _compare_images(then, now, pixels)
            case ".csv":
                return _compare_tables(then, now)
            case ".json":
                difference = _find_first_difference(
                    *(json.loads(p.read_text()) for p in (then, now))
                )
                return _judge(not difference, difference or "the same values, written otherwise")
    except (ValueError, csv.Error) as error:
        return FileComparison("different", f"cannot be read as {kind}: {error}")
    return FileComparison("different", "other bytes")


def _compare_images(then: Path, now: Path, pixels: int) -> FileComparison:
    old, new = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (then, now))
    if old is None or new is None:
        raise ValueError("not an image")
    if old.shape != new.shape or old.dtype != new.dtype:
        return FileComparison(
            "different", f"was {old.shape} {old.dtype}, is {new.shape} {new.dtype}"
        )
    difference = np.abs(old.astype(np.int64) - new.astype(np.int64))
    share = float((difference > 0).mean())
    detail = f"{share:.2%} of the values differ, by at most {int(difference.max())} grey levels"
    return _judge(int(difference.max()) <= pixels, detail)


def _compare_tables(then: Path, now: Path) -> FileComparison:
    """Cell by cell as they are written: "0012" is not 12, and a float is its digits."""
    old, new = _read_cells(then), _read_cells(now)
    if old[0] != new[0]:
        return FileComparison(
            "different", f"the columns were {_shorten(old[0])}, are {_shorten(new[0])}"
        )
    if len(old) != len(new):
        return FileComparison("different", f"had {len(old) - 1} rows, has {len(new) - 1}")
    cells = [
        (f"{old[0][column]} of row {row}", was, new[row][column])
        for row, cells in enumerate(old)
        for column, was in enumerate(cells)
        if was != new[row][column]
    ]
    if not cells:
        return FileComparison("alike", "the same cells, written otherwise")
    where, was, now_is = cells[0]
    return FileComparison(
        "different", f"{len(cells)} cells differ: {where} was {was or 'empty'}, is {now_is}"
    )


def _read_cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("not a table")
    return rows


def _find_first_difference(old: Any, new: Any, path: str = "") -> str:
    """Where two JSON values first differ, in words, or "". 1 is neither 1.0 nor true."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        pairs = [(old[key], new[key], f"{path}.{key}".lstrip(".")) for key in old]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    elif type(old) is type(new) and old == new:
        return ""
    else:
        return f"{path or 'the file'} was {_shorten(old)}, is {_shorten(new)}"
    return next(filter(None, (_find_first_difference(a, b, name) for a, b, name in pairs)), "")


def _judge(alike: bool, detail: str) -> FileComparison:
    return FileComparison("alike" if alike else "different", detail)


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
