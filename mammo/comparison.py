"""How far two files of the same out differ, and whether that is within the audit's tolerances.

Bytes decide first. Where they differ, weights, tables, metrics and images are compared as what they
are; nothing else can be within tolerance.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mammo.params import Audit

Likeness = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True)
class Comparison:
    """How alike two files are, and the largest difference in words (empty if identical)."""

    likeness: Likeness
    detail: str = ""


IDENTICAL = Comparison("identical")


def worst(comparisons: list[Comparison]) -> Likeness:
    """The least alike of several; nothing at all is identical."""
    order: list[Likeness] = ["identical", "within tolerance", "different"]
    return max((c.likeness for c in comparisons), key=order.index, default="identical")


def compare_files(then: Path, now: Path, kind: str, tolerances: Audit) -> Comparison:
    """Compare two files.

    Args:
        then: the file of the record.
        now: the one made anew.
        kind: the suffix of the file where it belongs: `.safetensors`, `.json`, `.csv`, `.png`.
        tolerances: of the audit.
    """
    if then.read_bytes() == now.read_bytes():
        return IDENTICAL
    compare = _BY_KIND.get(kind)
    if compare is None:
        return Comparison("different", "other bytes")
    try:
        return compare(then, now, tolerances)
    except (ValueError, SafetensorError) as error:
        return Comparison("different", f"cannot be read as {kind}: {error}")


def compare_weights(then: Path, now: Path, tolerances: Audit) -> Comparison:
    """Every tensor: the largest difference, alone and over the tensor's largest absolute value."""
    old, new = load_file(then), load_file(now)
    if {n: x.shape for n, x in old.items()} != {n: x.shape for n, x in new.items()}:
        return Comparison("different", "other tensors, or tensors of other shapes")
    largest = relative = 0.0
    name = ""
    for key, tensor in old.items():
        difference = _largest_difference(tensor, new[key])
        scale = float(np.abs(tensor).max(initial=0))
        share = difference / scale if scale else (np.inf if difference else 0.0)
        largest = max(largest, difference)
        if share >= relative:
            relative, name = share, key
    detail = (
        f"{len(old)} tensors: largest difference {largest:.3g}; relative to its tensor's largest "
        f"value {relative:.3g}, in {name}"
    )
    return _judged(relative <= tolerances.weights, detail)


def compare_metrics(then: Path, now: Path, tolerances: Audit) -> Comparison:
    """Every number, against its interval where it has one: {value, low, high}."""
    old, new = json.loads(then.read_text()), json.loads(now.read_text())
    return _compare_trees(old, new, tolerances, "")


def compare_tables(then: Path, now: Path, tolerances: Audit) -> Comparison:
    """Every cell: numbers relative to the larger of both, anything else as it stands."""
    old, new = pd.read_csv(then), pd.read_csv(now)
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return Comparison("different", "other columns or another number of rows")
    largest, where = 0.0, ""
    for column in old.columns:
        one, other = old[column], new[column]
        if pd.api.types.is_float_dtype(one) and pd.api.types.is_numeric_dtype(other):
            share = _relative(one.to_numpy(float), other.to_numpy(float))
            if share > largest:
                largest, where = share, column
        elif not one.equals(other):
            rows = np.flatnonzero((one.astype(str) != other.astype(str)).to_numpy())
            if len(rows):
                row = int(rows[0])
                return Comparison(
                    "different",
                    f"{column} of line {row + 2} was {one.iloc[row]}, is {other.iloc[row]}",
                )
    detail = f"{len(old)} rows: largest relative difference {largest:.3g} in {where}"
    return _judged(largest <= tolerances.numbers, detail)


def compare_images(then: Path, now: Path, tolerances: Audit) -> Comparison:
    """Every pixel, in grey levels."""
    old, new = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (then, now))
    if old is None or new is None:
        raise ValueError("not an image")
    if old.shape != new.shape or old.dtype != new.dtype:
        return Comparison("different", f"was {old.shape} {old.dtype}, is {new.shape} {new.dtype}")
    difference = np.abs(old.astype(np.int64) - new.astype(np.int64))
    share = float((difference > 0).mean())
    detail = f"{share:.2%} of the values differ, by at most {int(difference.max())} grey levels"
    return _judged(int(difference.max()) <= tolerances.pixels, detail)


_BY_KIND = {
    ".safetensors": compare_weights,
    ".json": compare_metrics,
    ".csv": compare_tables,
    ".png": compare_images,
}


def _compare_trees(old: Any, new: Any, tolerances: Audit, path: str) -> Comparison:
    """Two JSON values, the second against the first; the worst that is found in them."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        if {"value", "low", "high"} <= old.keys():
            return _compare_estimates(old, new, tolerances, path)
        pairs = [(old[key], new[key], f"{path}.{key}".lstrip(".")) for key in old]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    elif old == new:
        return IDENTICAL
    elif _is_number(old) and _is_number(new):
        share = _relative(np.array([old], float), np.array([new], float))
        return _judged(share <= tolerances.numbers, f"{path} was {old:.6g}, is {new:.6g}")
    else:
        return Comparison("different", f"{path or 'the file'} was {_short(old)}, is {_short(new)}")
    found = [_compare_trees(a, b, tolerances, name) for a, b, name in pairs]
    likeness = worst(found)
    return next((c for c in found if c.likeness == likeness), IDENTICAL)


def _compare_estimates(
    old: dict[str, Any], new: dict[str, Any], tolerances: Audit, path: str
) -> Comparison:
    """A metric with its interval: how far the value has moved, over the interval's width."""
    if old == new:
        return IDENTICAL
    if not all(_is_number(x[key]) for x in (old, new) for key in ("value", "low", "high")):
        return Comparison("different", f"{path} was {_short(old)}, is {_short(new)}")
    width, moved = old["high"] - old["low"], abs(new["value"] - old["value"])
    detail = (
        f"{path} was {old['value']:.6g}, is {new['value']:.6g}: {moved:.3g} of an interval "
        f"{width:.3g} wide"
    )
    return _judged(moved <= tolerances.metrics * width, detail)


def _judged(within: bool, detail: str) -> Comparison:
    return Comparison("within tolerance" if within else "different", detail)


def _largest_difference(old: NDArray[Any], new: NDArray[Any]) -> float:
    """Infinite where only one of two is a number."""
    one, other = old.astype(np.float64), new.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    difference = np.where(same, 0.0, np.abs(one - other))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0))


def _relative(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """The largest difference of two numbers over the larger of them; 0 is like 0, NaN like NaN."""
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.abs(old - new) / np.maximum(np.abs(old), np.abs(new))
    share = np.where(same, 0.0, np.where(np.isnan(share), np.inf, share))
    return float(share.max(initial=0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
