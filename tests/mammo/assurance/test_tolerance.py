"""Other bytes are judged as what they are: images by grey levels, tables and JSON word by word."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammo.assurance.tolerance import FileComparison, compare_files, find_least_alike

PIXELS = 2
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


def compared(tmp_path: Path, kind: str, then: bytes, now: bytes) -> FileComparison:
    (tmp_path / "then").write_bytes(then)
    (tmp_path / "now").write_bytes(now)
    return compare_files(tmp_path / "then", tmp_path / "now", kind, PIXELS)


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize("kind", [".safetensors", ".json", ".csv", ".png", ".html", ""])
def test_the_same_bytes_are_identical_whatever_they_are(tmp_path: Path, kind: str) -> None:
    assert compared(tmp_path, kind, b"rubbish", b"rubbish") == FileComparison("identical")


@pytest.mark.parametrize("kind", [".safetensors", ".json", ".csv", ".png", ".html", ""])
def test_rubbish_that_differs_is_different(tmp_path: Path, kind: str) -> None:
    for now in (b"\x00\xfftrash", b"", b"a,b\n1\n", b'"'):
        assert compared(tmp_path, kind, b"\x00rubbish", now).likeness == "different"


@pytest.mark.parametrize(
    ("then", "now", "detail"),
    [
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] was 2, is 3"),
        ({"a": {"b": 0.1}}, {"a": {"b": 0.1000000001}}, "a.b was 0.1, is 0.1000000001"),
        ({"a": 1}, {"a": 1.0}, "a was 1, is 1.0"),
        ({"a": 1}, {"a": True}, "a was 1, is true"),
        ({"a": "12"}, {"a": "0012"}, 'a was "12", is "0012"'),
        ({"a": 1}, {"b": 1}, 'the file was {"a": 1}, is {"b": 1}'),
        ({"a": [1]}, {"a": [1, 2]}, "a was [1], is [1, 2]"),
    ],
)
def test_json_differs_by_any_value(tmp_path: Path, then: Any, now: Any, detail: str) -> None:
    found = compared(tmp_path, ".json", json.dumps(then).encode(), json.dumps(now).encode())
    assert found == FileComparison("different", detail)


@given(JSON)
def test_json_written_otherwise_is_alike(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    then, now = json.dumps(content), json.dumps(content, indent=1) + "\n"
    assert compared(folder, ".json", then.encode(), now.encode()).likeness == "alike"


@pytest.mark.parametrize(
    ("now", "detail"),
    [
        ("id,p\n0012,0.5\nb,0.251\n", "1 cells differ: p of row 2 was 0.25, is 0.251"),
        ("id,p\n12,0.5\nb,0.3\n", "2 cells differ: id of row 1 was 0012, is 12"),
        ("id,p\n0012,0.50\nb,0.25\n", "1 cells differ: p of row 1 was 0.5, is 0.50"),
        ("id,p\n0012,0.5\n", "had 2 rows, has 1"),
        ("id,q\n0012,0.5\nb,0.25\n", 'the columns were ["id", "p"], are ["id", "q"]'),
    ],
)
def test_tables_differ_by_any_cell(tmp_path: Path, now: str, detail: str) -> None:
    found = compared(tmp_path, ".csv", b"id,p\n0012,0.5\nb,0.25\n", now.encode())
    assert found == FileComparison("different", detail)


def test_a_table_written_otherwise_is_alike(tmp_path: Path) -> None:
    found = compared(tmp_path, ".csv", b"id,p\n0012,\n", b'id,p\r\n"0012",\r\n')
    assert found == FileComparison("alike", "the same cells, written otherwise")


@pytest.mark.parametrize(("step", "likeness"), [(2, "alike"), (3, "different")])
def test_images_are_compared_by_grey_levels(tmp_path: Path, step: int, likeness: str) -> None:
    then = np.full((4, 5), 100, np.uint8)
    now = then.copy()
    now[2, 3] += step
    found = compared(tmp_path, ".png", png(then), png(now))
    assert found.likeness == likeness
    assert found.detail == f"5.00% of the values differ, by at most {step} grey levels"


def test_an_image_of_another_size_is_different(tmp_path: Path) -> None:
    found = compared(tmp_path, ".png", png(np.zeros((4, 5))), png(np.zeros((5, 4))))
    assert found.likeness == "different"


@given(st.lists(st.sampled_from(["identical", "alike", "different"])))
def test_of_several_the_worst_counts(likenesses: list[Any]) -> None:
    found = find_least_alike([FileComparison(likeness) for likeness in likenesses])
    if "different" in likenesses:
        assert found == "different"
    elif "alike" in likenesses:
        assert found == "alike"
    else:
        assert found == "identical"
