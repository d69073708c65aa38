"""Registering the predictor as a new version of the model, tied to its snapshot."""

import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from packaging.requirements import Requirement

from flows import aliases
from flows.registry import CHALLENGER, CHAMPION, MODEL, snapshot_tags, versions
from flows.snapshot import Snapshot, read_tag, tag_exists, write_tag
from mammo.errors import UserError
from mammo.files import NETWORK_FILES

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "dicom")]),
    outputs=Schema(
        [
            ColSpec(DataType.double, "probability"),
            *(ColSpec(DataType.double, name) for name in ("x1", "y1", "x2", "y2")),
            ColSpec(DataType.string, "found_by"),
            ColSpec(DataType.binary, "heatmap"),
        ]
    ),
)

NETWORKS = {"detector": "outputs/train_detector", "classifier": "outputs/train_classifier"}
"""The parts of a predictor and the folders that they come from."""

WHOLE = "git_tag"
"""The tag of a version that is written last: one without it is half-registered."""

SERVING = "flows/serving.py"
"""What MLflow runs to load the model."""

# What runs the pipeline, but no part of a prediction.
_NOT_FOR_SERVING = {
    "prefect",
    "fastapi",
    "dvc",
    "psutil",
    "sqlalchemy",
    "optuna",
    "scikit-learn",
    "jinja2",
    "typer",
}


def git_tag(version: int) -> str:
    """The git tag of a model version."""
    return f"model/v{version}"


def check_next_tag(root: Path) -> None:
    """Make sure, before any work, that the next version's git tag is free.

    Raises:
        UserError: if it is taken: git's tags and the registry do not belong together.
    """
    # MLflow never gives a number twice; of versions that were deleted, the aliases' history tells.
    known = {int(found.version) for found in versions()} | {m.version for m in aliases.history()}
    following = git_tag(max(known, default=0) + 1)
    if tag_exists(root, following):
        raise UserError(
            f"git has the tag {following} already, but the registry has no such version: point "
            f"MLFLOW_TRACKING_URI to the registry that it belongs to, or delete the tag"
        )


def register(root: Path, snapshot: Snapshot, run: str) -> tuple[int, str]:
    """Log the predictor to a run and register it; return the version and the alias it got."""
    uri = log_predictor(root, run)
    MlflowClient().update_run(run, "RUNNING")  # logging a model has ended it, but much is to come
    # The registry numbers versions, so the version comes before its git tag.
    made = mlflow.register_model(uri, MODEL, tags=snapshot_tags(snapshot))
    return int(made.version), complete(root, snapshot, int(made.version))


def complete(root: Path, snapshot: Snapshot, version: int) -> str:
    """Make a version of the registry whole and return its alias; what is done already stays.

    It gets its git tag and its alias (challenger: the gate makes champions, the first one too), and
    last the tag that says it is whole: whatever is cut short before can be done again.

    Raises:
        UserError: if git has this tag for another snapshot, or the snapshot's commit is not there.
    """
    tag = git_tag(version)
    if not tag_exists(root, tag):
        write_tag(root, snapshot, tag, f"{MODEL} version {version}\n\nsnapshot {snapshot.digest}")
    elif read_tag(root, tag) != snapshot:
        raise UserError(f"git has the tag {tag} already, for another snapshot: delete the tag")
    alias = CHAMPION if aliases.current().get(CHAMPION) == version else CHALLENGER
    if aliases.current().get(alias) != version:
        aliases.move(alias, version, aliases.AUTOMATIC, "registered by a retrain")
    MlflowClient().set_model_version_tag(MODEL, str(version), WHOLE, tag)
    return alias


def log_predictor(root: Path, run: str) -> str:
    """Log the whole predictor, made of the stages' outs, to a run; return the model's address."""
    # Not before: a retrain with nothing to do has no use for it.
    from mammo.datasets.phantom import phantom_dicom_bytes

    with tempfile.TemporaryDirectory() as scratch:
        predictor = Path(scratch) / "predictor"
        gather_predictor(root, predictor)
        with mlflow.start_run(run_id=run):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(root / SERVING),
                artifacts={"predictor": str(predictor)},
                code_paths=[str(root / "mammo")],
                signature=SIGNATURE,
                input_example=pd.DataFrame({"dicom": [phantom_dicom_bytes(seed=0)]}),
                pip_requirements=serving_requirements(),
            )
    return str(info.model_uri)


def gather_predictor(root: Path, folder: Path) -> None:
    """Copy what a predictor consists of into `folder`, as `mammo.predictor.load_predictor` reads
    it: weights, architectures and settings."""
    for part, source in NETWORKS.items():
        (folder / part).mkdir(parents=True)
        for file in NETWORK_FILES:
            shutil.copyfile(root / source / file, folder / part / file)
    shutil.copyfile(root / "params.yaml", folder / "params.yaml")


def serving_requirements() -> list[str]:
    """Packages that a prediction needs, at the versions that trained the model."""
    names = [
        requirement.name
        for requirement in map(Requirement, metadata.requires("mammoflow") or [])
        if requirement.marker is None and requirement.name not in _NOT_FOR_SERVING
    ]
    return [f"{name}=={metadata.version(name)}" for name in sorted(names)]
