"""A version without torch: what it asks for, and that MLflow loads and asks it from anywhere."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")

from flows.serving.standalone import REQUIREMENTS, TOLERANCE, measure_distance, save_portable
from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.exporting.export import export_predictor
from mammo.serving.predictor import load_predictor
from tests.imports import ROOT, closure
from tests.support.learning import write_untrained_predictor

ASK = """
import sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.DataFrame({"dicom": [sys.argv[2], "none.dcm"]}), params={"heatmap": False})
print(repr(float(found["probability"][0])), found["error"][1], "torch" in sys.modules, sep="|")
"""


def test_the_requirements_are_what_a_prediction_imports_and_nothing_else() -> None:
    modules = closure(ROOT / "mammo/portable/predictor.py")
    modules |= closure(ROOT / "mammo/serving/intake.py")
    imported: set[str] = set()
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    theirs = importlib.metadata.packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - {"mammo"}
    named = {theirs[name][0].lower() for name in foreign if name in theirs}
    # pydantic brings its core; served_model.py, which is no part of mammo, imports MLflow.
    assert named - {"pydantic_core"} == set(REQUIREMENTS) - {"mlflow"}
    assert [name for name in REQUIREMENTS if "opencv" in name] == ["opencv-python-headless"]


def test_mlflow_loads_it_from_any_folder_without_torch(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = write_untrained_predictor(tmp_path / "predictor")
    export_predictor(folder, tmp_path / "portable")
    assert measure_distance(folder, tmp_path / "portable") <= TOLERANCE
    save_portable(tmp_path / "portable", tmp_path / "model")
    assert not [one for one in recwarn if "input example" in str(one.message)]
    (tmp_path / "exam.dcm").write_bytes(draw_phantom_dicom(seed=0))
    command = [sys.executable, "-c", ASK, str(tmp_path / "model"), str(tmp_path / "exam.dcm")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    others = [part for part in os.environ.get("PYTHONPATH", "").split(":") if part != str(ROOT)]
    environment["PYTHONPATH"] = ":".join(others)
    said = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    probability, error, torch = said.stdout.strip().split("|")
    expected = load_predictor(folder).predict(tmp_path / "exam.dcm", heatmap=False)
    assert abs(float(probability) - expected.probability) <= TOLERANCE
    assert (error, torch) == ("there is no such file", "False")
    described = (tmp_path / "model/MLmodel").read_text()
    assert str(tmp_path) not in described
    assert not list((tmp_path / "model").rglob("*.pkl"))
