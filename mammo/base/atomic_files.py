"""Writing files so that a reader never sees half of one, and equal content is equal bytes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

NETWORK_FILES = ("weights.safetensors", "architecture.json")
"""What a trained network consists of, in a folder of its own."""


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes the place of `folder`.

    If the body raises, `folder` stays as it was and the unfinished one is removed.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)


def partial_path(path: Path) -> Path:
    """The name of a file while it is written. A writer that is killed leaves it behind."""
    return path.with_name(f".{path.name}.partial")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` (its folder is made if need be) through a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, through a temporary name."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given. NaN and infinity raise ValueError."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index. Floats keep nine significant digits: enough for float32."""
    write_text(path, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
