"""Other bytes are judged as what they are: weights, metrics, tables, images."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mammo.comparison import Comparison, compare_files, worst
from mammo.params import Audit

TOLERANCES = Audit(weights=0.01, metrics=0.1, numbers=0.01, pixels=2)


def compared(tmp_path: Path, kind: str, then: bytes, now: bytes) -> Comparison:
    (tmp_path / "then").write_bytes(then)
    (tmp_path / "now").write_bytes(now)
    return compare_files(tmp_path / "then", tmp_path / "now", kind, TOLERANCES)


def weights(tmp_path: Path, **tensors: list[float]) -> bytes:
    path = tmp_path / "weights"
    save_file({name: np.array(x, np.float32) for name, x in tensors.items()}, path)
    return path.read_bytes()


def png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize("kind", [".safetensors", ".json", ".csv", ".png", ".html", ""])
def test_the_same_bytes_are_identical_whatever_they_are(tmp_path: Path, kind: str) -> None:
    assert compared(tmp_path, kind, b"rubbish", b"rubbish") == Comparison("identical")


@pytest.mark.parametrize("kind", [".safetensors", ".json", ".csv", ".png", ".html", ""])
def test_rubbish_that_differs_is_different(tmp_path: Path, kind: str) -> None:
    assert compared(tmp_path, kind, b"\x00rubbish", b"\x00trash").likeness == "different"


@pytest.mark.parametrize(
    ("value", "likeness"),
    [(2.0, "identical"), (2.01, "within tolerance"), (2.1, "different"), (np.nan, "different")],
)
def test_weights_by_the_share_of_their_tensors_largest(
    tmp_path: Path, value: float, likeness: str
) -> None:
    then = weights(tmp_path, a=[-4.0, 2.0], b=[0.0])
    found = compared(tmp_path, ".safetensors", then, weights(tmp_path, a=[-4.0, value], b=[0.0]))
    assert found.likeness == likeness
    if likeness != "identical":
        assert "in a" in found.detail


def test_other_tensors_are_different(tmp_path: Path) -> None:
    then = weights(tmp_path, a=[1.0])
    assert compared(tmp_path, ".safetensors", then, weights(tmp_path, a=[1.0, 2.0])).likeness == (
        "different"
    )
    assert compared(tmp_path, ".safetensors", then, weights(tmp_path, b=[1.0])).likeness == (
        "different"
    )


@pytest.mark.parametrize(
    ("now", "likeness"),
    [
        ({"auroc": {"value": 0.805, "low": 0.7, "high": 0.9}}, "within tolerance"),
        ({"auroc": {"value": 0.85, "low": 0.7, "high": 0.9}}, "different"),
        ({"auroc": {"value": None, "low": 0.7, "high": 0.9}}, "different"),
        ({"auroc": {"value": 0.8, "low": 0.7}}, "different"),
        ({"auc": {"value": 0.8, "low": 0.7, "high": 0.9}}, "different"),
    ],
)
def test_a_metric_against_its_interval(tmp_path: Path, now: Any, likeness: str) -> None:
    then = {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    found = compared(tmp_path, ".json", json.dumps(then).encode(), json.dumps(now).encode())
    assert found.likeness == likeness


def test_the_detail_is_of_the_metric_that_differs_most(tmp_path: Path) -> None:
    then, now = {"loss": 1.0, "epochs": [5, 7]}, {"loss": 1.001, "epochs": [5, 9]}
    found = compared(tmp_path, ".json", json.dumps(then).encode(), json.dumps(now).encode())
    assert found == Comparison("different", "epochs[1] was 7, is 9")


@pytest.mark.parametrize(
    ("now", "likeness"),
    [
        ("id,p\na,0.5\nb,0.251\n", "within tolerance"),
        ("id,p\na,0.5\nb,0.3\n", "different"),
        ("id,p\na,0.5\nc,0.25\n", "different"),
        ("id,p\na,0.5\n", "different"),
        ("id,q\na,0.5\nb,0.25\n", "different"),
        ("id,p\na,0.5\nb,\n", "different"),
    ],
)
def test_tables_cell_by_cell(tmp_path: Path, now: str, likeness: str) -> None:
    found = compared(tmp_path, ".csv", b"id,p\na,0.5\nb,0.25\n", now.encode())
    assert found.likeness == likeness


def test_a_changed_label_is_named_by_column_and_line(tmp_path: Path) -> None:
    found = compared(tmp_path, ".csv", b"id,cancer\na,0\nb,1\n", b"id,cancer\na,0\nb,0\n")
    assert found == Comparison("different", "cancer of line 3 was 1, is 0")


@pytest.mark.parametrize(("step", "likeness"), [(2, "within tolerance"), (3, "different")])
def test_images_by_grey_levels(tmp_path: Path, step: int, likeness: str) -> None:
    then = np.full((4, 5), 100, np.uint8)
    now = then.copy()
    now[2, 3] += step
    found = compared(tmp_path, ".png", png(then), png(now))
    assert found.likeness == likeness
    assert found.detail == f"5.00% of the values differ, by at most {step} grey levels"


def test_an_image_of_another_size_is_different(tmp_path: Path) -> None:
    found = compared(tmp_path, ".png", png(np.zeros((4, 5))), png(np.zeros((5, 4))))
    assert found.likeness == "different"


@given(st.lists(st.sampled_from(["identical", "within tolerance", "different"])))
def test_the_worst_of_several(likenesses: list[Any]) -> None:
    found = worst([Comparison(likeness) for likeness in likenesses])
    if "different" in likenesses:
        assert found == "different"
    elif "within tolerance" in likenesses:
        assert found == "within tolerance"
    else:
        assert found == "identical"


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    st.floats(0, 0.009),
    st.data(),
)
def test_a_change_within_the_share_is_always_tolerated(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], share: float, data: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.getbasetemp()
    scale = max(abs(value) for value in values)
    place = data.draw(st.integers(0, len(values) - 1))
    moved = [x + share * scale if i == place else x for i, x in enumerate(values)]
    found = compared(
        tmp_path, ".safetensors", weights(tmp_path, a=values), weights(tmp_path, a=moved)
    )
    assert found.likeness in ("identical", "within tolerance")
