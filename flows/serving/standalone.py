"""A registered version as a folder that needs neither torch nor this project: an MLflow model.

Its networks are ONNX, so that its environment is small. The registered version stays as it is: its
files are what the gate scores and an audit compares.
"""

import tempfile
import warnings
from importlib import metadata
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models.model import MLMODEL_FILE_NAME

import mammo
from flows.audit.integrity import read_model
from flows.tracking import served_model
from flows.tracking.find_version import find_version
from flows.tracking.register import SIGNATURE, remove_local_paths
from mammo.base.atomic_files import fresh_folder
from mammo.base.errors import UserError
from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.exporting.export import export_predictor
from mammo.intake.prepare import prepare
from mammo.portable.predictor import load_portable
from mammo.serving.predictor import load_predictor

TOLERANCE = 1e-5
"""The largest difference from torch that is allowed, of probabilities and heat in [0, 1]."""

PHANTOMS = 4
"""Drawn films for which torch and ONNX Runtime are compared."""

REQUIREMENTS = (
    "imagecodecs",
    "mlflow",
    "numba",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "pandera",
    "pebble",
    "pillow",
    "pydantic",
    "pydicom",
    "pyyaml",
    "rich",
)
"""The packages that a prediction imports; OpenCV as the build that needs no system libraries."""


def export_version(reference: str, folder: Path) -> float:
    """Write a version as an MLflow model whose networks ONNX Runtime computes.

    Args:
        reference: `3`, `champion` or `@champion`.
        folder: it appears whole, and must not exist yet.

    Returns:
        The largest difference between its answers and the version's own, for PHANTOMS phantoms.

    Raises:
        UserError: there is no such version, its heat has no formula, its answers differ by more
            than `TOLERANCE`, or the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already: name a new folder")
    version = find_version(reference)
    with tempfile.TemporaryDirectory() as scratch:
        source = read_model(version, Path(scratch) / "registered").predictor
        portable = Path(scratch) / "predictor"
        export_predictor(source, portable)
        apart = measure_distance(source, portable)
        if apart > TOLERANCE:
            raise UserError(
                f"version {version.version}: ONNX Runtime's answers differ from torch's by "
                f"{apart:.1g}, which is more than rounding: it is not exported"
            )
        with fresh_folder(folder) as partial:
            partial.rmdir()  # MLflow makes it
            save_portable(portable, partial)
    return apart


def save_portable(portable: Path, target: Path) -> None:
    """Save what `export_predictor` wrote as an MLflow model."""
    code = Path(str(served_model.__file__))
    with warnings.catch_warnings():
        # Here the signature is written down, and not made from an example.
        warnings.filterwarnings("ignore", r"(?s).*input example was not provided")
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(code),
            artifacts={"predictor": str(portable)},
            code_paths=[str(Path(str(mammo.__file__)).parent)],
            signature=SIGNATURE,
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
        )
    remove_local_paths(target / MLMODEL_FILE_NAME, code.name)


def measure_distance(source: Path, portable: Path) -> float:
    """The largest difference of probabilities and heat, for PHANTOMS phantoms.

    It is infinite if a box differs.
    """
    ours, theirs = load_predictor(source), load_portable(portable)
    apart = 0.0
    for seed in range(PHANTOMS):
        prepared = prepare(draw_phantom_dicom(seed=seed), ours.params.preprocess)
        expected, found = ours.run_networks(prepared), theirs.run_networks(prepared)
        if (expected.box, expected.found_by) != (found.box, found.found_by):
            return float("inf")
        assert expected.heat is not None
        assert found.heat is not None
        heat = float(np.abs(expected.heat - found.heat).max())
        apart = max(apart, abs(expected.probability - found.probability), heat)
    return apart
