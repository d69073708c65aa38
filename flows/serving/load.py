"""A registered model is loaded by this project's code, from its weights.

The code that was registered with the model is not run.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from flows.audit.integrity import read_model
from flows.tracking.find_version import find_version
from flows.tracking.names import MODEL
from mammo.base.determinism import derive_seed, pin
from mammo.serving.exams import name_code
from mammo.serving.finding import Model
from mammo.serving.predictor import Predictor, load_predictor


@dataclass(frozen=True)
class LoadedModel:
    """A predictor, and which model of the registry it is."""

    predictor: Predictor
    model: Model


def load_version(reference: str) -> LoadedModel:
    """Load the version that `3`, `champion` or `@champion` means.

    Raises:
        UserError: if there is none, or it cannot be loaded.
    """
    return load_found(find_version(reference))


def load_found(version: ModelVersion) -> LoadedModel:
    """Load a version of the registry.

    Raises:
        UserError: if it cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as scratch:
        predictor = load_predictor(read_model(version, Path(scratch)).predictor)
    model = Model(
        name=MODEL,
        version=int(version.version),
        snapshot=version.tags.get("snapshot_digest"),
        commit=version.tags.get("git_commit"),
        code=name_code(),
    )
    return LoadedModel(predictor, model)


def prepare_torch(loaded: LoadedModel) -> None:
    """Set torch up as the stages do, so that the numbers are the same.

    It counts for the thread that calls it, and for threads that have not computed yet.
    """
    params = loaded.predictor.params
    pin(derive_seed(params.seed, "predict"), params.threads)
