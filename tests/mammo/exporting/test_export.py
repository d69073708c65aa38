"""A predictor is exported to the same bytes each time, or refused."""

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")

from mammo.base.errors import UserError
from mammo.exporting.export import export_predictor
from tests.imports import ROOT
from tests.support.learning import write_predictor_with, write_untrained_predictor


def test_the_same_networks_are_the_same_bytes(tmp_path: Path) -> None:
    folder = write_untrained_predictor(tmp_path / "predictor")
    written = []
    for name in ("a", "b"):
        export_predictor(folder, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    for content in written[0].values():
        assert str(ROOT).encode() not in content
        assert b"/lib/python" not in content


def test_a_backbone_without_a_formula_is_refused(tmp_path: Path) -> None:
    folder = write_predictor_with(tmp_path / "predictor", "densenet121")
    with pytest.raises(UserError, match="no formula"):
        export_predictor(folder, tmp_path / "portable")
    assert not (tmp_path / "portable").exists()
