"""The registered model in MLflow: its versions, and the records that each version's run keeps."""

import shutil
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME
from pydantic import ValidationError
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from flows.pipeline.lock_and_cache import read_data_out
from flows.processes.checked import RunId, validate
from flows.processes.folder_lock import hold_lock
from flows.processes.follow import CommandError
from flows.processes.reach import require_mlflow
from flows.processes.words import hide_password
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import addresses
from flows.tracking.names import DEFAULT_MODEL, MODEL
from mammo.base.atomic_files import write_bytes
from mammo.base.errors import UserError
from mammoflow_artifacts import sqlite_file

EXPERIMENT = "mammoflow" if MODEL == DEFAULT_MODEL else f"mammoflow {MODEL}"
CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
SNAPSHOT_ARTIFACT = "snapshot/snapshot.json"
ENVIRONMENT_ARTIFACT = "environment.json"

_NEW = ".new-"
"""How the folder begins that a registry is made in."""

FAULTS = (MlflowException, RequestException, SQLAlchemyError)
"""What MLflow raises if it fails or cannot be reached; the last of its database, as it opens it."""

EXPECTED = (UserError, CommandError, *FAULTS)
"""What a flow reports as one sentence, by `describe_error`, instead of raising it."""


def open_store(root: Path) -> str:
    """Make the store and the experiment if need be, and return the experiment's id.

    Raises:
        UserError: if the server that holds it does not answer, or its artifacts could not be found.
    """
    require_mlflow()
    file = sqlite_file(mlflow.get_tracking_uri())
    if file is not None:
        addresses.require_plugin()
        _make_database(file)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    addresses.mend(root)
    if experiment is None:
        try:
            client.create_experiment(EXPERIMENT, artifact_location=addresses.TOP if file else None)
        except MlflowException as error:
            # Another process may have made it meanwhile.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    mlflow.set_experiment(EXPERIMENT)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def _make_database(file: Path) -> None:
    """Make an SQLite file with MLflow's tables if there is none: all of them, or no file.

    MLflow makes them one by one in seconds. A process that is killed meanwhile would leave a file
    that MLflow refuses ever after.
    """
    file.parent.mkdir(exist_ok=True)
    with hold_lock(file.parent):
        if file.exists():
            return
        for left in file.parent.glob(f"{_NEW}*"):  # by one that was killed: the lock is ours
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=_NEW) as folder:
            made = Path(folder) / file.name
            uri = f"sqlite:///{made}"
            MlflowClient(uri, uri).search_experiments()  # the first question makes the tables
            write_bytes(file, made.read_bytes())


def describe_error(error: Exception) -> str:
    """An expected error as one sentence; MLflow's own get its address and what to do."""
    if not isinstance(error, FAULTS):
        return str(error)
    said = (str(error).splitlines() or [type(error).__name__])[0]
    where = hide_password(mlflow.get_tracking_uri())
    return f"MLflow at {where} failed ({said}); once it is back, run this again"


def read_run_id(version: ModelVersion) -> str:
    """The id of the run that a version names as its own.

    Raises:
        UserError: if it names none: the id becomes part of addresses.
    """
    return validate(RunId, version.run_id, f"the run of version {version.version} in MLflow")


def read_snapshot(version: ModelVersion) -> Snapshot:
    """The snapshot stored with a version's run.

    Raises:
        UserError: if there is none, or it names paths outside the project.
    """
    found = find_snapshot(version)
    if found is None:
        raise UserError(
            f"the run {version.run_id} of version {version.version} has no {SNAPSHOT_ARTIFACT}"
        )
    return found


def find_snapshot(version: ModelVersion) -> Snapshot | None:
    """The snapshot stored with a version's run, or None if there is none.

    Raises:
        UserError: if it names paths outside the project.
    """
    number = version.version
    text = read_artifact(read_run_id(version), SNAPSHOT_ARTIFACT)
    if text is None:
        return None
    try:
        return Snapshot.from_json(text, f"{SNAPSHOT_ARTIFACT} of version {number} in MLflow")
    except UserError as error:
        raise UserError(
            f"{error}; somebody changed it: `mammoflow audit {number} --quick` says more, and "
            f"`mammoflow retrain --force` registers a version anew"
        ) from None


def read_environment(version: ModelVersion) -> Environment | None:
    """What a version was made in; None if that was not recorded, or is no longer readable."""
    try:
        text = read_artifact(read_run_id(version), ENVIRONMENT_ARTIFACT)
        return None if text is None else Environment.model_validate_json(text)
    except (ValidationError, UserError):
        return None


def is_absent(error: Exception) -> bool:
    """Whether MLflow said that there is no such thing, and not that it cannot be reached."""
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def read_artifact(run: str, path: str) -> str | None:
    """A text among the artifacts of a run, or None if there is no such run or text.

    Raises:
        MlflowException: if MLflow, or where it keeps its files, does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = mlflow.artifacts.download_artifacts(f"runs:/{run}/{path}", dst_path=scratch)
            return Path(file).read_text(encoding="utf-8")
        except (UnicodeDecodeError, IsADirectoryError):
            return None
        except MlflowException as error:
            failure = error
    # Alone it calls files absent that are out of reach, through a server it calls absent ones a
    # failure; their list tells.
    folder = Path(path).parent
    try:
        listed = MlflowClient().list_artifacts(run, str(folder) if folder.name else None)
    except MlflowException as error:
        if is_absent(error):
            return None
        raise
    if path in [artifact.path for artifact in listed]:
        raise MlflowException(f"the artifact {path} of the run {run} cannot be read: {failure}")
    return None


def read_folder(run: str, path: str) -> dict[str, str]:
    """The texts in a folder among the artifacts of a run, by their names.

    Folders in it are not looked into. Empty if there is no such run or folder.
    """
    try:
        listed = MlflowClient().list_artifacts(run, path)
    except MlflowException as error:
        if is_absent(error):
            return {}
        raise
    texts = {x.path: read_artifact(run, x.path) for x in listed if not x.is_dir}
    return {Path(name).name: text for name, text in texts.items() if text is not None}


def copy_model(version: ModelVersion, folder: Path) -> Path:
    """Copy the registered model of a version into a folder; nothing of it is run.

    Raises:
        UserError: if MLflow has no such model.
        MlflowException: if MLflow, or where it keeps its files, does not answer.
    """
    uri = f"models:/{MODEL}/{version.version}"
    try:
        model = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except (*FAULTS, OSError) as error:
        if isinstance(error, FAULTS) and not is_absent(error):
            raise  # this says nothing about the model
        raise UserError(
            f"the registered model of version {version.version} cannot be read: {error}"
        ) from None
    # MLflow writes it while it copies.
    (model / REGISTERED_MODEL_META_FILE_NAME).unlink(missing_ok=True)
    return model


def read_model_tags(name: str) -> dict[str, str] | None:
    """The tags of a registered model, or None if there is no model of this name."""
    try:
        return dict(MlflowClient().get_registered_model(name).tags)
    except MlflowException as error:
        if is_absent(error):
            return None
        raise


def list_versions() -> list[ModelVersion]:
    """Every version of the model, the newest first."""
    found = MlflowClient().search_model_versions(f"name = '{MODEL}'")
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def read_data_hash(snapshot: Snapshot) -> str:
    """DVC's hash of data/, as data.dvc names it.

    Raises:
        UserError: if the snapshot has no data.dvc, or none that DVC wrote.
    """
    return read_data_out(snapshot)[1]


def make_snapshot_tags(snapshot: Snapshot) -> dict[str, str]:
    """What a model version's tags say of its snapshot."""
    return {
        "snapshot_digest": snapshot.digest,
        "git_commit": snapshot.commit,
        "data_hash": read_data_hash(snapshot),
    }


def find_latest_version() -> ModelVersion | None:
    """The newest version of the model, or None if there is none yet."""
    return next(iter(list_versions()), None)


def get_version(number: int) -> ModelVersion:
    """A version of the model, with the tags that it has now."""
    return MlflowClient().get_model_version(MODEL, str(number))


def find(number: int) -> ModelVersion | None:
    """A version of the model, or None if it was deleted."""
    try:
        return get_version(number)
    except MlflowException as error:
        if is_absent(error):
            return None
        raise
