"""Everything said to MLflow: runs, params, metrics, plots, datasets and the registered model.

What is logged of a stage is what dvc.yaml declares for it; nothing here knows a stage by name.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import ValidationError
from requests import RequestException

from flows.pipeline.graph import Outcome, Stage
from flows.pipeline.lock_and_cache import data_out
from flows.processes.checked import ModelName, RunId, checked
from flows.processes.reach import require_mlflow
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import addresses
from mammo.base.errors import UserError
from mammoflow_artifacts import sqlite_file

USUAL = "mammogram-classifier"
"""The model's name where nobody has chosen another."""

MODEL = checked(ModelName, os.environ.get("MAMMOFLOW_MODEL") or USUAL, "MAMMOFLOW_MODEL")
EXPERIMENT = "mammoflow" if MODEL == USUAL else f"mammoflow {MODEL}"
CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
SNAPSHOT_ARTIFACT = "snapshot/snapshot.json"
ENVIRONMENT_ARTIFACT = "environment.json"
FAULTS = (MlflowException, RequestException)  # what MLflow raises when it cannot be reached
WORKSPACE = "workspace"  # the tag of a retrain's run that says which folder it is at work in
_TRIGGER = "commit_snapshot"


def open_store(root: Path) -> str:
    """Make the store and the experiment if need be, and return the experiment's id.

    Raises:
        UserError: if the server that holds it does not answer, or its artifacts could not be found.
    """
    require_mlflow()
    file = sqlite_file(mlflow.get_tracking_uri())
    if file is not None:
        addresses.require_plugin()
        file.parent.mkdir(exist_ok=True)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    addresses.mend(root)  # not before: MLflow makes tables, and rows in them, at the first question
    if experiment is None:
        client.create_experiment(EXPERIMENT, artifact_location=addresses.TOP if file else None)
    mlflow.set_experiment(EXPERIMENT)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def start_retrain(
    experiment: str,
    snapshot: Snapshot,
    workspace: str = "",
    trigger: str = "",
    name: str = "retrain",
    tags: Mapping[str, str] | None = None,
) -> str:
    """Start the parent run of a retrain; return its id.

    Args:
        experiment: the experiment's id.
        snapshot: what the retrain starts from.
        workspace: the folder at work, by a name that tells nothing of it.
        trigger: digest of the commit's own snapshot, which `watch` compares.
        name: of the run.
        tags: more of them.
    """
    given = {
        **(tags or {}),
        "git_commit": snapshot.commit,
        "mlflow.source.git.commit": snapshot.commit,
        WORKSPACE: workspace,
        _TRIGGER: trigger,
    }
    return str(MlflowClient().create_run(experiment, tags=given, run_name=name).info.run_id)


def made_for(experiment: str, trigger: str) -> list[ModelVersion]:
    """The versions that retrains of a commit's own snapshot have made, given its digest."""
    runs = MlflowClient().search_runs([experiment], f"tags.{_TRIGGER} = '{trigger}'")
    ids = {run.info.run_id for run in runs}
    return [version for version in versions() if version.run_id in ids]


def page_of_run(experiment: str, run: str) -> str | None:
    """The address of a run's page, where the store is a server."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http:", "https:")):
        return None
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run}"


def start_stage(experiment: str, parent: str, stage: Stage) -> str:
    """Start the nested run of a stage; return its id."""
    tags = {MLFLOW_PARENT_RUN_ID: parent, "stage": stage.name, "pool": stage.meta.pool}
    return str(MlflowClient().create_run(experiment, tags=tags, run_name=stage.name).info.run_id)


def in_words(error: Exception) -> str:
    """MLflow's failure as one sentence."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return f"MLflow at {mlflow.get_tracking_uri()} failed ({said}); once it is back, run this again"


def end_run(run: str, succeeded: bool) -> None:
    """End a run as FINISHED or FAILED."""
    MlflowClient().set_terminated(run, "FINISHED" if succeeded else "FAILED")


def log_stage(root: Path, stage: Stage, outcome: Outcome, run: str, parent: str) -> None:
    """Log a finished stage's params, metrics and plots to its run, and the metrics to the parent's.

    A metric's name begins with the stage's: live curves of the same name stay curves.
    """
    client = MlflowClient()
    params = flatten({key: _lookup(root / "params.yaml", key) for key in stage.params})
    metrics: dict[str, float] = {}
    for path in stage.metrics:
        found = numbers(flatten(_read_structured(root / path)))
        metrics.update({f"{stage.name}/{key}": value for key, value in found.items()})
    _log_batch(client, run, params, metrics)
    _log_batch(client, parent, {}, metrics)
    client.set_tag(run, "fate", outcome.fate)
    for path in (*stage.metrics, *stage.plots, *stage.pages):
        if (root / path).is_dir():
            client.log_artifacts(run, str(root / path), path.name)
        else:
            client.log_artifact(run, str(root / path))


def log_params(run: str, snapshot: Snapshot) -> None:
    """Log every param of the snapshot's params.yaml, as it stands there."""
    _log_batch(MlflowClient(), run, flatten(yaml.safe_load(snapshot.files["params.yaml"])), {})


def log_snapshot(root: Path, run: str, snapshot: Snapshot, made_in: Environment) -> None:
    """Log what a model was made from and in: the snapshot, the environment, and the data set with
    DVC's hash as digest."""
    client = MlflowClient()
    client.log_text(run, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    for name, text in snapshot.files.items():
        client.log_text(run, text, f"snapshot/{name}")
    for key, value in snapshot_tags(snapshot).items():
        client.set_tag(run, key, value)
    client.log_text(run, made_in.model_dump_json(indent=2), ENVIRONMENT_ARTIFACT)
    labels = pd.read_csv(root / "data" / "train.csv", dtype={"patient_id": str, "image_id": str})
    # MLflow keeps the columns and the digest of a data set, never a row.
    dataset = from_pandas(labels, source="data/train.csv", name="data", digest=data_hash(snapshot))
    context = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run, [DatasetInput(dataset=dataset._to_mlflow_entity(), tags=context)])


def log_pages(root: Path, run: str, stages: Sequence[Stage]) -> None:
    """Log to the parent run the pages that the stages made: what people open first."""
    for path in (path for stage in stages for path in stage.pages):
        MlflowClient().log_artifact(run, str(root / path))


def run_of(version: ModelVersion) -> str:
    """The id of the run that a version names as its own.

    Raises:
        UserError: if it names none: the id becomes part of addresses.
    """
    return checked(RunId, version.run_id, f"the run of version {version.version} in MLflow")


def snapshot_of(version: ModelVersion) -> Snapshot:
    """The snapshot stored with a version's run.

    Raises:
        UserError: if there is none, or it names places outside the project.
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
        UserError: if it names places outside the project.
    """
    number = version.version
    text = artifact_text(run_of(version), SNAPSHOT_ARTIFACT)
    if text is None:
        return None
    try:
        return Snapshot.from_json(text, f"{SNAPSHOT_ARTIFACT} of version {number} in MLflow")
    except UserError as error:
        raise UserError(
            f"{error}; somebody changed it: `mammoflow audit {number} --quick` says more, and "
            f"`mammoflow retrain --force` registers a version anew"
        ) from None


def environment_of(version: ModelVersion) -> Environment | None:
    """What a version was made in; None if that was not recorded, or is no longer readable."""
    try:
        text = artifact_text(run_of(version), ENVIRONMENT_ARTIFACT)
        return None if text is None else Environment.model_validate_json(text)
    except (ValidationError, UserError):
        return None


def absent(error: Exception) -> bool:
    """Whether MLflow said that there is no such thing, and not that it cannot be reached."""
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def artifact_text(run: str, path: str) -> str | None:
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
        if absent(error):
            return None
        raise
    if path in [artifact.path for artifact in listed]:
        raise MlflowException(f"the artifact {path} of the run {run} cannot be read: {failure}")
    return None


def versions() -> list[ModelVersion]:
    """Every version of the model, the newest first."""
    found = MlflowClient().search_model_versions(f"name = '{MODEL}'")
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def data_hash(snapshot: Snapshot) -> str:
    """DVC's hash of data/, as data.dvc names it.

    Raises:
        UserError: if the snapshot has no data.dvc, or none that DVC wrote.
    """
    return data_out(snapshot)[1]


def snapshot_tags(snapshot: Snapshot) -> dict[str, str]:
    """What a model version's tags say of its snapshot."""
    return {
        "snapshot_digest": snapshot.digest,
        "git_commit": snapshot.commit,
        "data_hash": data_hash(snapshot),
    }


def latest_version() -> ModelVersion | None:
    """The newest version of the model, or None if there is none yet."""
    return next(iter(versions()), None)


def version(number: int) -> ModelVersion:
    """A version of the model, with the tags that it has now."""
    return MlflowClient().get_model_version(MODEL, str(number))


def find(number: int) -> ModelVersion | None:
    """A version of the model, or None if it was deleted."""
    try:
        return version(number)
    except MlflowException as error:
        if absent(error):
            return None
        raise


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay whole."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def numbers(flat: Mapping[str, Any]) -> dict[str, float]:
    """The entries that MLflow can take as metrics, under names that it allows."""
    return {
        key.replace("%", " percent"): float(value)
        for key, value in flat.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _log_batch(
    client: MlflowClient, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Log params and metrics in batches that MLflow accepts (100 and 1000 at once)."""
    now = int(pd.Timestamp.now().timestamp() * 1000)
    for chunk in _chunks(list(params.items()), 100):
        client.log_batch(run, params=[Param(key, str(value)) for key, value in chunk])
    for chunk in _chunks(list(metrics.items()), 1000):
        client.log_batch(run, metrics=[Metric(key, value, now, 0) for key, value in chunk])


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read_structured(path: Path) -> Any:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def _lookup(path: Path, dotted: str) -> Any:
    """The value of a key such as `tune.trials` of a params file."""
    value = yaml.safe_load(path.read_text())
    for part in dotted.split("."):
        value = value[part]
    return value
