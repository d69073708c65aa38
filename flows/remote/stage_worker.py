"""What a worker does for a retrain on another machine: one stage of a snapshot, in its own clone.

It is the deployment `run-stage/gpu` of prefect.yaml; `mammoflow up --workers gpu` starts a worker.
Files are exchanged through DVC's default remote. Nothing changes in the clone but its cache.
"""

import os
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed

from flows.pipeline.graph import Stage, read_pipeline, repro, skip_hints
from flows.pipeline.lock_and_cache import require_form
from flows.pipeline.transfer import pull_deps, push_result
from flows.processes.checked import RunId, validate
from flows.processes.follow import CommandError
from flows.processes.reach import require_mlflow
from flows.processes.run_git import fetch, has_commit
from flows.remote.remote_stage import StageResult
from flows.snapshots.snapshot import Snapshot, materialise
from flows.tracking.arithmetic import try_to_measure
from flows.tracking.registry import FAULTS
from mammo.base.errors import UserError
from mammo.kept.result_store import FOLDER as STORE

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@flow(name="run-stage", flow_run_name="{stage}")
def run_requested_stage(stage: str, snapshot: str, mlflow_run: str = "") -> State[Any]:
    """Run one stage of a snapshot and push its outs.

    Args:
        stage: its name in dvc.yaml.
        snapshot: as JSON; its dvc.lock names the deps, which must be in the remote.
        mlflow_run: id of the run that live curves go to, if this worker reaches its server.

    Returns:
        A completed state whose message is a `StageResult` as JSON, or a failed one that says why.
    """
    root, logger = Path.cwd(), get_run_logger()
    say = skip_hints(logger.info)
    try:
        wanted = Snapshot.from_json(snapshot, "the run's parameter `snapshot`")
        _fetch_commit(root, wanted.commit)
        require_form(root, wanted)
        with materialise(root, wanted) as folder:
            declared = _find_stage(folder, stage)
            pull_deps(folder, stage)
            environment = {
                "PYTHONPATH": str(folder),
                "MLFLOW_RUN_ID": _find_reachable_run(mlflow_run),
                # Outside of the folder, which is removed when the run ends: a training that is cut
                # short goes on from these.
                "MAMMOFLOW_CHECKPOINTS": os.environ.get(
                    "MAMMOFLOW_CHECKPOINTS", str(root / "checkpoints")
                ),
                # And tuning and training share the pictures that the first of them decodes.
                "MAMMOFLOW_STORE": os.environ.get("MAMMOFLOW_STORE") or str(root / STORE),
            }
            fate = repro(declared, folder, environment, say)
            entry = push_result(folder, stage)
            arithmetic = try_to_measure(folder, logger.warning)
            done = StageResult(fate=fate, entry=entry, arithmetic=arithmetic)
    except (UserError, CommandError) as error:
        return Failed(message=str(error))
    return Completed(message=done.model_dump_json())


def _find_stage(folder: Path, name: str) -> Stage:
    """The stage of the commit's own dvc.yaml.

    Raises:
        UserError: if it has none of this name.
    """
    stages = {stage.name: stage for stage in read_pipeline(folder)}
    if name not in stages:
        raise UserError(f"dvc.yaml of the commit has no stage {name!r}, only {', '.join(stages)}")
    return stages[name]


def _fetch_commit(root: Path, commit: str) -> None:
    """Fetch a commit if the clone lacks it.

    Raises:
        UserError: if it is on no remote of the clone.
    """
    if not has_commit(root, commit):
        fetch(root, "--all")
    if not has_commit(root, commit):
        raise UserError(
            f"the worker's clone {root} cannot fetch the commit {commit}: push it to where the "
            f"worker's clone comes from"
        )


def _find_reachable_run(run: str) -> str:
    """The run, if this worker's MLflow knows it and answers at once; else an empty string."""
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"  # MLflow's own retries take minutes, and no curve is worth that
    try:
        require_mlflow()
        known = validate(RunId, run, "the run's parameter `mlflow_run`") if run else ""
        return str(MlflowClient().get_run(known).info.run_id) if known else ""
    except (*FAULTS, UserError):
        return ""
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before
