"""A checkpoint is taken up by the very same training only: same code, settings and data."""

from pathlib import Path

import pytest
import torch

from mammo.kept.checkpoint import hash_inputs
from mammo.kept.code_version import code_version
from tests.imports import ROOT

FIT = "mammo.classifier_training.fit"


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("mammo/classifier_training/fit.py", True),
        ("mammo/classifier/network.py", True),
        ("mammo/kept/checkpoint.py", True),
        ("mammo/pins.py", True),
        ("mammo/detector/detector.py", False),
        ("mammo/dicom/reader.py", False),
        ("mammo/base/errors.py", False),
    ],
)
def test_it_is_of_the_code_that_the_training_uses_in_whatever_room_that_is(
    file: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hash_inputs(FIT, [], [], {})
    read = Path.read_bytes
    code_version.cache_clear()
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + b"\n# x" * (path == ROOT / file)
    )
    assert (hash_inputs(FIT, [], [], {}) != before) == counts
    code_version.cache_clear()


def test_it_is_of_the_settings_the_data_and_the_first_weights() -> None:
    weights = {"a": torch.zeros(2)}
    keys = {
        hash_inputs(FIT, [1], [b"data"], weights),
        hash_inputs(FIT, [2], [b"data"], weights),
        hash_inputs(FIT, [1], [b"other data"], weights),
        hash_inputs(FIT, [1], [b"data"], {"a": torch.ones(2)}),
        hash_inputs("mammo.tuning.search", [1], [b"data"], weights),
    }
    assert len(keys) == 5
    assert hash_inputs(FIT, [1], [b"data"], weights) in keys
