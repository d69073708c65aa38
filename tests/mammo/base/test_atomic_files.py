"""Files and folders that appear whole, or not at all."""

from pathlib import Path

import pandas as pd
import pytest

from mammo.base.atomic_files import (
    fresh_folder,
    partial_path,
    read_json,
    write_bytes,
    write_csv,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with fresh_folder(tmp_path / "out") as out:
        (out / "new").touch()
        assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_body_that_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()

    def work() -> None:
        with fresh_folder(tmp_path / "out") as out:
            (out / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_what_an_earlier_process_left_unfinished_is_not_in_the_new_folder(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "half").touch()
    with fresh_folder(tmp_path / "out") as out:
        assert names(out) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()  # a file cannot replace it
    with pytest.raises(OSError, match="file"):
        write_bytes(tmp_path / "file", b"content")
    assert not partial_path(tmp_path / "file").exists()


def test_json_is_read_as_it_was_written_and_has_no_nan(tmp_path: Path) -> None:
    content = {"b": 0.1, "a": ["\u00e9", None]}
    write_json(tmp_path / "new" / "file.json", content)
    assert read_json(tmp_path / "new" / "file.json") == content
    assert list(read_json(tmp_path / "new" / "file.json")) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "file.json", float("nan"))
    assert names(tmp_path) == ["new"]


def test_a_table_keeps_what_a_float32_can_tell(tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", pd.DataFrame({"x": [1 / 3, 0.5], "n": [1, 2]}))
    assert (tmp_path / "table.csv").read_bytes() == b"x,n\n0.333333333,1\n0.5,2\n"
