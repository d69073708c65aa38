"""The runs of MLflow that a retrain and its stages make: params, metrics, plots and data sets.

dvc.yaml declares what is logged of a stage; this module knows no stage by name.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.pipeline.graph import Stage, StageOutcome
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from flows.tracking.registry import (
    ENVIRONMENT_ARTIFACT,
    FAULTS,
    SNAPSHOT_ARTIFACT,
    list_versions,
    make_snapshot_tags,
    read_data_hash,
)

WORKSPACE = "workspace"
"""The tag of a retrain's run that says which folder it is at work in."""

FLOW_RUN_TAG = "snapshot "
"""How the tag of a retrain's flow run in Prefect begins that names its snapshot."""

_TRIGGER = "commit_snapshot"


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
        workspace: a name for the folder of the retrain, which does not reveal the folder.
        trigger: digest of the commit's own snapshot, which `watch` compares.
        name: of the run.
        tags: further tags of the run.
    """
    given = {
        **(tags or {}),
        "git_commit": snapshot.commit,
        "mlflow.source.git.commit": snapshot.commit,
        WORKSPACE: workspace,
        _TRIGGER: trigger,
    }
    return str(MlflowClient().create_run(experiment, tags=given, run_name=name).info.run_id)


def find_versions_of_commit(experiment: str, trigger: str) -> list[ModelVersion]:
    """The versions that retrains of a commit have made, given the digest of its own snapshot."""
    runs = MlflowClient().search_runs([experiment], f"tags.{_TRIGGER} = '{trigger}'")
    ids = {run.info.run_id for run in runs}
    return [version for version in list_versions() if version.run_id in ids]


def find_page(experiment: str, run: str) -> str | None:
    """The address of a run's page, where the store is a server."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http:", "https:")):
        return None
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run}"


def start_stage(experiment: str, parent: str, stage: Stage) -> str:
    """Start the nested run of a stage; return its id."""
    tags = {MLFLOW_PARENT_RUN_ID: parent, "stage": stage.name, "pool": stage.meta.pool}
    return str(MlflowClient().create_run(experiment, tags=tags, run_name=stage.name).info.run_id)


def list_stage_runs(parent: Run) -> list[Run]:
    """The runs of the stages of a retrain.

    Args:
        parent: the retrain's run.
    """
    nested = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}' and tags.stage != ''"
    return list(MlflowClient().search_runs([parent.info.experiment_id], nested))


@contextmanager
def end_afterwards(run: str) -> Iterator[None]:
    """End a run after a block: as FINISHED, or as FAILED if the block raises.

    If MLflow itself failed, the run stays as it is: MLflow would not take the end of the run
    either. The next retrain writes it.
    """
    try:
        yield
    except FAULTS:
        raise
    except BaseException:
        end_run(run, succeeded=False)
        raise
    end_run(run, succeeded=True)


def end_run(run: str, succeeded: bool) -> None:
    """End a run as FINISHED or FAILED."""
    MlflowClient().set_terminated(run, "FINISHED" if succeeded else "FAILED")


def log_stage(root: Path, stage: Stage, outcome: StageOutcome, run: str, parent: str) -> None:
    """Log a finished stage's params, metrics and plots to its run, and the metrics to the parent's.

    A metric's name begins with the stage's: live curves of the same name stay curves.
    """
    client = MlflowClient()
    params = flatten({key: _lookup(root / "params.yaml", key) for key in stage.params})
    metrics: dict[str, float] = {}
    for path in stage.metrics:
        found = select_numbers(flatten(_read_structured(root / path)))
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
    """Log every param of the snapshot's params.yaml."""
    _log_batch(MlflowClient(), run, flatten(yaml.safe_load(snapshot.files[PARAMS_FILE])), {})


def log_snapshot(root: Path, run: str, snapshot: Snapshot, made_in: Environment) -> None:
    """Log what a model was made from and in: the snapshot, the environment and the data set.

    The digest of the data set is DVC's hash.
    """
    client = MlflowClient()
    client.log_text(run, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    for name, text in snapshot.files.items():
        client.log_text(run, text, f"snapshot/{name}")
    for key, value in make_snapshot_tags(snapshot).items():
        client.set_tag(run, key, value)
    client.log_text(run, made_in.model_dump_json(indent=2), ENVIRONMENT_ARTIFACT)
    labels = pd.read_csv(root / "data" / "train.csv", dtype={"patient_id": str, "image_id": str})
    # MLflow keeps the columns and the digest of a data set, never a row.
    dataset = from_pandas(
        labels, source="data/train.csv", name="data", digest=read_data_hash(snapshot)
    )
    context = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run, [DatasetInput(Dataset(**dataset.to_dict()), context)])


def log_pages(root: Path, run: str, stages: Sequence[Stage]) -> None:
    """Log to the parent run the pages that the stages made: what people open first."""
    for path in (path for stage in stages for path in stage.pages):
        MlflowClient().log_artifact(run, str(root / path))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay whole."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def select_numbers(flat: Mapping[str, Any]) -> dict[str, float]:
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
    for chunk in _split_list(list(params.items()), 100):
        client.log_batch(run, params=[Param(key, str(value)) for key, value in chunk])
    for chunk in _split_list(list(metrics.items()), 1000):
        client.log_batch(run, metrics=[Metric(key, value, now, 0) for key, value in chunk])


def _split_list(items: list[Any], size: int) -> Iterator[list[Any]]:
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
