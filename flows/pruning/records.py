"""Which records of Prefect and MLflow are no longer needed: flow runs, and runs without a model.

Prefect's server removes old events itself (after a week, by default). It could not keep the last
flow run of each deployment, which shows whether the deployment still works.
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
from mlflow.store.tracking.dbmodels.models import SqlLoggedModel, SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.processes.prefect_home import DATABASE
from flows.processes.reach import require_mlflow, require_prefect
from flows.pruning.policy import Survey, Waste
from flows.tracking.addresses import locate_registry
from flows.tracking.registry import EXPERIMENT, is_absent
from flows.tracking.runs import FLOW_RUN_TAG

PAGE = 200  # flow runs that Prefect returns at once
BATCH = 50  # flow runs that it deletes at once

_ENDED = ("FINISHED", "FAILED", "KILLED")  # states of MLflow's runs


def find_old_flow_runs(root: Path, before: float) -> Survey:
    """Flow runs that ended before a time, with their task runs, logs and artifacts.

    The last one of each deployment stays. So does the last retrain of a snapshot: the watch needs
    it.

    Args:
        root: the clone; if there is no server, it has Prefect's state.
        before: seconds since 1970.

    Raises:
        UserError: if the server of PREFECT_API_URL does not answer.
    """
    # Not at the top: it takes seconds, and not every user of this module needs Prefect.
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    require_prefect()
    if PREFECT_API_URL.value() is None and not (root / DATABASE).exists():
        return Survey()
    with get_client(sync_client=True) as client:
        old = list(_find_old(client, datetime.fromtimestamp(before, UTC)))

    def remove() -> None:
        with get_client(sync_client=True) as client:
            for start in range(0, len(old), BATCH):
                _delete(client, old[start : start + BATCH])

    return Survey([Waste("Prefect's flow runs, with their logs", len(old), None, remove)])


def _find_old(client: Any, before: datetime) -> Iterator[UUID]:
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
            marks |= {"snapshot" for tag in run.tags if tag.startswith(FLOW_RUN_TAG)}
            newest = bool(marks - known)
            known |= marks
            ended_at = run.end_time or run.created
            if not newest and ended_at is not None and ended_at < before:
                yield run.id
        offset += len(page)


def _delete(client: Any, runs: list[UUID]) -> None:
    """Delete flow runs and their artifacts, which Prefect's server would keep."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    of_them = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    while artifacts := client.read_artifacts(artifact_filter=of_them, limit=PAGE):
        for artifact in artifacts:
            client.delete_artifact(artifact.id)
    chosen = {"flow_runs": {"id": {"any_": [str(run) for run in runs]}}, "limit": BATCH}
    client.request("POST", "/flow_runs/bulk_delete", json=chosen).raise_for_status()


def find_unregistered_runs(root: Path, before: float) -> Survey:
    """MLflow's runs that ended before a time and made no version, with their artifacts.

    A nested run is removed with its retrain, or stays with it. The last retrain stays.

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
        return Survey()
    runs = _read_all(client, experiment.experiment_id)
    old = _select_old(client, runs, before)
    ids = {run.info.run_id for run in old}
    models = list(_read_models(client, experiment.experiment_id, ids))
    stored = [(run.info.run_id, run.info.artifact_uri) for run in old]
    stored += [(model.model_id, model.artifact_location) for model in models]
    folders = [folder for id_, folder in stored if id_ in folder]  # else somebody changed it
    size = sum(map(_measure, folders))

    def remove() -> None:
        for folder in folders:
            repository: Any = get_artifact_repository(folder)
            repository.delete_artifacts()
        for model in models:
            client.delete_logged_model(model.model_id)
        for run in old:
            if run.info.lifecycle_stage == "active":
                client.delete_run(run.info.run_id)
        _delete_rows(root, [run.info.run_id for run in old], [model.model_id for model in models])

    return Survey([Waste("MLflow's runs of which no version came", len(old), size, remove)])


def _select_old(client: MlflowClient, runs: dict[str, Run], before: float) -> list[Run]:
    """The runs of retrains that ended before a time and made no version; the last retrain stays."""
    kept = {version.run_id for version in client.search_model_versions()}
    families: dict[str, list[Run]] = {}
    for run in runs.values():
        families.setdefault(_find_ancestor(run, runs), []).append(run)
    last = max(runs.values(), key=lambda run: run.info.start_time, default=None)
    return [
        run
        for family in families.values()
        if not any(run.info.run_id in kept or run is last for run in family)
        and all(_has_ended_before(run, before) for run in family)
        for run in family
    ]


def _read_all(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """Every run by its id, also those that somebody deleted in MLflow's pages."""
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token
        )
        found |= {str(run.info.run_id): run for run in page}
        if not (token := page.token):
            return found


def _find_ancestor(run: Run, runs: dict[str, Run]) -> str:
    """The id of the retrain that a run is nested in, at any depth; its own id if it is in none."""
    seen: set[str] = set()
    while (parent := run.data.tags.get(MLFLOW_PARENT_RUN_ID)) in runs and parent not in seen:
        seen.add(parent)
        run = runs[parent]
    return str(run.info.run_id)


def _has_ended_before(run: Run, before: float) -> bool:
    ended = run.info.end_time or run.info.start_time
    return run.info.status in _ENDED and ended / 1000 < before


def _read_models(client: MlflowClient, experiment: str, runs: set[str]) -> Iterator[Any]:
    """The models that were logged to runs."""
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=50, page_token=token)
        yield from (model for model in page if model.source_run_id in runs)
        if not (token := page.token):
            return


def _measure(folder: str) -> int:
    """The bytes of artifacts; 0 if they were removed already."""
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


def _delete_rows(root: Path, runs: list[str], models: list[str]) -> None:
    """Remove rows of deleted runs and models from the database, as `mlflow gc` does.

    That command cannot be used: whichever runs it is given, it also removes every experiment that
    anybody ever deleted and could still restore, with its runs. If the database belongs to a
    server and cannot be reached, the rows stay, marked as deleted.
    """
    uri = os.environ.get("MLFLOW_BACKEND_STORE_URI") or f"sqlite:///{locate_registry(root)}"
    if (tracking := mlflow.get_tracking_uri()).startswith(("sqlite:", "postgresql", "mysql")):
        uri = tracking
    elif uri.startswith("sqlite:") and not locate_registry(root).exists():
        return
    open_database: Any = SqlAlchemyStore
    store = open_database(uri, "mlflow-artifacts:/")
    try:
        gone = {run for run in runs if store.get_run(run).info.lifecycle_stage == "deleted"}
    except MlflowException as error:
        if is_absent(error):
            return  # it is another server's database
        raise
    # MLflow's tables say what belongs to a row and goes with it: metrics, params, tags.
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, ids in ((SqlLoggedModel, models), (SqlRun, gone)):
            for id_ in ids:
                session.delete(session.get_one(table, id_))
