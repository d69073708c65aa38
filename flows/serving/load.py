"""A registered model, taken from the registry and loaded: by this project's code, from its weights.

Nothing that lies with the model is run.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from flows.audit.integrity import read_model
from flows.tracking.find_version import find_version
from flows.tracking.registry import MODEL
from mammo.base.determinism import pin, stage_seed
from mammo.serving.exams import name_code
from mammo.serving.finding import Model
from mammo.serving.predictor import Predictor, load_predictor


@dataclass(frozen=True)
class Loaded:
    """A model, and which one it is."""

    predictor: Predictor
    model: Model


def load_version(reference: str) -> Loaded:
    """Load the version that `3`, `champion` or `@champion` means.

    Raises:
        UserError: if there is none, or it cannot be loaded.
    """
    return load_found(find_version(reference))


def load_found(version: ModelVersion) -> Loaded:
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
    return Loaded(predictor, model)


def pin_for(loaded: Loaded) -> None:
    """Set torch up as for the stages, so that the numbers are theirs.

    For the thread that calls it, and for threads that have not computed yet.
    """
    params = loaded.predictor.params
    pin(stage_seed(params.seed, "predict"), params.threads)
