"""Which records of Prefect and MLflow nobody needs any more: flow runs, and runs without a model.

Of Prefect's events its server takes care itself (a week, by default). What it would not do is to
keep the last flow run of each deployment, by which one sees whether it still works.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.processes.reach import require_mlflow, require_prefect
from flows.pruning.policy import Found, Waste
from flows.tracking.registry import EXPERIMENT, is_absent

PAGE = 200  # flow runs that Prefect gives at once
BULK = 50  # and that it deletes at once

_ENDED = ("FINISHED", "FAILED", "KILLED")  # states of MLflow's runs


def old_flow_runs(root: Path, before: float) -> Found:
    """Flow runs that ended before a time, with their task runs, logs and artifacts.

    The last of each deployment stays, and the last of a retrain's snapshot: the watch asks for it.

    Args:
        root: the clone; without a server Prefect's state is in it.
        before: seconds since 1970.

    Raises:
        UserError: if the server of PREFECT_API_URL does not answer.
    """
    # Not for a command that has nothing to do with Prefect: it takes seconds.
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    require_prefect()
    if PREFECT_API_URL.value() is None and not (root / ".prefect" / "prefect.db").exists():
        return Found()
    with get_client(sync_client=True) as client:
        old = list(_old(client, datetime.fromtimestamp(before, UTC)))

    def go() -> None:
        with get_client(sync_client=True) as client:
            for start in range(0, len(old), BULK):
                _delete(client, old[start : start + BULK])

    return Found([Waste("Prefect's flow runs, with their logs", len(old), None, go)])


def _old(client: Any, before: datetime) -> Iterator[UUID]:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import TERMINAL_STATES
    from prefect.client.schemas.sorting import FlowRunSort

    ended = FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))
    wanted = FlowRunFilter(state=FlowRunFilterState(type=ended))
    known: set[Any] = set()
    offset = 0
    while page := client.read_flow_runs(
        flow_run_filter=wanted,
        sort=FlowRunSort.END_TIME_DESC,
        limit=PAGE,
        offset=offset,
    ):
        for run in page:
            marks = {run.deployment_id or run.flow_id}
            marks |= {"snapshot" for tag in run.tags if tag.startswith("snapshot ")}
            newest = bool(marks - known)
            known |= marks
            ended_at = run.end_time or run.created
            if not newest and ended_at is not None and ended_at < before:
                yield run.id
        offset += len(page)


def _delete(client: Any, runs: list[UUID]) -> None:
    """Delete flow runs; Prefect's server leaves their artifacts alone."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    of_them = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    while artifacts := client.read_artifacts(artifact_filter=of_them, limit=PAGE):
        for artifact in artifacts:
            client.delete_artifact(artifact.id)
    chosen = {"flow_runs": {"id": {"any_": [str(run) for run in runs]}}, "limit": BULK}
    client.request("POST", "/flow_runs/bulk_delete", json=chosen).raise_for_status()


def unregistered_runs(root: Path, before: float) -> Found:
    """MLflow's runs that ended before a time and of which no version came, with their artifacts.

    A run goes with the retrain that it is nested in, or stays with it. The last retrain stays.

    Args:
        root: the clone, which may have MLflow's database.
        before: seconds since 1970.

    Raises:
        UserError: if the server of MLFLOW_TRACKING_URI does not answer.
        MlflowException: if it fails.
    """
    require_mlflow()
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return Found()
    runs = _all(client, experiment.experiment_id)
    kept = {version.run_id for version in client.search_model_versions()}
    families: dict[str, list[Run]] = {}
    for run in runs.values():
        families.setdefault(_ancestor(run, runs), []).append(run)
    last = max(runs.values(), key=lambda run: run.info.start_time, default=None)
    old = [
        run
        for family in families.values()
        if not any(run.info.run_id in kept or run is last for run in family)
        and all(_ended_before(run, before) for run in family)
        for run in family
    ]
    ids = {run.info.run_id for run in old}
    models = list(_models(client, experiment.experiment_id, ids))
    places = [(run.info.run_id, run.info.artifact_uri) for run in old]
    places += [(model.model_id, model.artifact_location) for model in models]
    folders = [folder for id_, folder in places if id_ in folder]  # else somebody changed it
    size = sum(map(_size, folders))

    def go() -> None:
        for folder in folders:
            get_artifact_repository(folder).delete_artifacts()
        for model in models:
            client.delete_logged_model(model.model_id)
        for run in old:
            if run.info.lifecycle_stage == "active":
                client.delete_run(run.info.run_id)
        _forget(root, [run.info.run_id for run in old], [model.model_id for model in models])

    return Found([Waste("MLflow's runs of which no version came", len(old), size, go)])


def _all(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """Every run by its id, those that somebody deleted in MLflow's pages included."""
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token
        )
        found |= {str(run.info.run_id): run for run in page}
        if not (token := page.token):
            return found


def _ancestor(run: Run, runs: dict[str, Run]) -> str:
    """The id of the retrain that a run is nested in, however deep, or its own."""
    seen: set[str] = set()
    while (parent := run.data.tags.get(MLFLOW_PARENT_RUN_ID)) in runs and parent not in seen:
        seen.add(parent)
        run = runs[parent]
    return str(run.info.run_id)


def _ended_before(run: Run, before: float) -> bool:
    ended = run.info.end_time or run.info.start_time
    return run.info.status in _ENDED and ended / 1000 < before


def _models(client: MlflowClient, experiment: str, runs: set[str]) -> Iterator[Any]:
    """The models that were logged to runs."""
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=50, page_token=token)
        yield from (model for model in page if model.source_run_id in runs)
        if not (token := page.token):
            return


def _size(folder: str) -> int:
    """Bytes of artifacts; what is gone already has none."""
    repository = get_artifact_repository(folder)

    def below(path: str | None) -> int:
        return sum(
            below(file.path) if file.is_dir else file.file_size or 0
            for file in repository.list_artifacts(path)
        )

    try:
        return below(None)
    except MlflowException as error:
        if is_absent(error):
            return 0
        raise


def _forget(root: Path, runs: list[str], models: list[str]) -> None:
    """Take rows of deleted runs and models out of the database, as `mlflow gc` does.

    That command would also take each experiment that anybody ever deleted. Where the database is a
    server's, and out of reach, the rows stay, marked as deleted.
    """
    uri = os.environ.get("MLFLOW_BACKEND_STORE_URI") or f"sqlite:///{root}/mlruns/mlflow.db"
    if (tracking := mlflow.get_tracking_uri()).startswith(("sqlite:", "postgresql", "mysql")):
        uri = tracking
    elif uri.startswith("sqlite:") and not (root / "mlruns" / "mlflow.db").exists():
        return
    store = SqlAlchemyStore(uri, "mlflow-artifacts:/")
    try:
        gone = {run for run in runs if store.get_run(run).info.lifecycle_stage == "deleted"}
    except MlflowException as error:
        if is_absent(error):
            return  # another server's
        raise
    for model in models:
        store._hard_delete_logged_model(model)
    for run in gone:
        store._hard_delete_run(run)
