"""What a retrain does about earlier retrains that were cut short, and about one that runs now.

Every retrain begins with this. It holds the lock of its folder, which the system releases however
the process ends. So nobody works on what another retrain of this folder has left unfinished.
"""

import functools
import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil
import yaml
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from prefect import State
from prefect.states import Failed
from voluptuous import Invalid

from flows.processes.folder_lock import TEMPORARY, only_one
from flows.processes.run_git import has_commit, read_file_at
from flows.processes.words import Say
from flows.snapshots.snapshot import LOCK_FILE, Snapshot, read_tag, tag_exists
from flows.tracking.aliases import list_champions
from flows.tracking.names import MODEL, name_tag
from flows.tracking.register import COMPLETION_TAG, complete
from flows.tracking.registry import find_snapshot, is_absent, list_versions, read_run_id
from flows.tracking.runs import WORKSPACE
from mammo.base.atomic_files import write_json, write_text
from mammo.base.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

REAPER = Path(__file__).parents[1] / "processes" / "reaper.py"

_reapers: "list[subprocess.Popen[bytes]]" = []  # kept, so that their pipes stay open


def one_at_a_time(flow: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Let a flow run only if no other wrapped flow runs in the current folder."""

    @functools.wraps(flow)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        try:
            with only_one(Path.cwd()):
                _end_server_with_us()
                return flow(*args, **kwargs)
        except UserError as error:
            return Failed(message=str(error))

    return alone


def _end_server_with_us() -> None:
    """Make sure that Prefect's temporary server ends, even if this process is killed."""
    for server in (child for child in psutil.Process().children() if _is_server(child)):
        # The reaper's stdin ends when this process ends, however that happens.
        command = [sys.executable, str(REAPER), str(server.pid), repr(server.create_time())]
        _reapers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def _is_server(child: psutil.Process) -> bool:
    try:
        return "uvicorn" in child.cmdline()
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


def name_workspace(root: Path) -> str:
    """A name for this folder on this machine, which reveals neither; a copy has another name."""
    path = root / TEMPORARY / "workspace"
    if not path.exists():
        write_text(path, secrets.token_hex(16))
    return hashlib.sha256(f"{path.read_text()}{root.resolve()}".encode()).hexdigest()[:16]


def repair_dvc(root: Path, say: Say) -> None:
    """Remove locks of processes that have ended, and repair a dvc.lock that was cut short.

    Raises:
        UserError: if DVC is busy in this folder.
    """
    try:
        _release_dvc_locks(root, say)
    except DvcException as error:
        raise UserError(f"DVC is busy in this folder: {error}") from None
    _repair_dvc_lock(root, say)


def repair_registry(root: Path, experiment: str, say: Say) -> None:
    """Complete half-registered versions of this folder, and end the runs that it left running."""
    client, workspace = MlflowClient(), name_workspace(root)
    _finish_versions(client, root, workspace, say)
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'", max_results=1000):
        if _is_of(client, str(run.info.run_id), workspace):
            versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
            status = (
                "FINISHED"
                if any(COMPLETION_TAG in version.tags for version in versions)
                else "KILLED"
            )
            client.set_terminated(run.info.run_id, status)
            say(f"the run {run.info.run_name} in MLflow was left running: now {status.lower()}")


def _finish_versions(client: MlflowClient, root: Path, workspace: str, say: Say) -> None:
    """Complete each version of a workspace that lacks its last tag, or remove it.

    A run has one version at most: a request that MLflow's client repeated may have made two.
    """
    found = sorted(list_versions(), key=lambda version: int(version.version))
    done = {version.run_id for version in found if COMPLETION_TAG in version.tags}
    for version in found:
        if COMPLETION_TAG in version.tags:
            continue
        try:
            run = read_run_id(version)
        except UserError:
            continue  # it has no run, so no retrain of ours made it
        if not _is_of(client, run, workspace):
            continue  # its own retrain may be at work on it now
        try:
            if _finish_version(client, root, version, has_twin=run in done, say=say):
                done.add(run)
        except UserError as error:
            say(
                f"{MODEL} version {version.version} is half-registered, and stays so until the "
                f"next retrain: {error}"
            )


def _finish_version(
    client: MlflowClient, root: Path, version: ModelVersion, has_twin: bool, say: Say
) -> bool:
    """Complete a half-registered version, or remove it if that is impossible.

    Args:
        client: of MLflow.
        root: the project.
        version: what to complete.
        has_twin: whether its run has a complete version already.
        say: gets a line about what was done.

    Returns:
        Whether the version is complete now.

    Raises:
        UserError: if it cannot be completed now; a later retrain tries again.
    """
    name, number = f"{MODEL} version {version.version}", int(version.version)
    if has_twin:
        snapshot, obstacle = None, "its run has another version"
    else:
        snapshot, obstacle = _find_snapshot_to_complete(root, version)
    if snapshot is not None:
        complete(root, snapshot, number)
        client.set_terminated(read_run_id(version), "FINISHED")
        say(f"{name} was half-registered: completed it")
        return True
    if number in list_champions():  # a half-registered version never was champion
        say(f"{name} lacks the tag {COMPLETION_TAG}, but stays: {obstacle}")
    else:
        client.delete_model_version(MODEL, version.version)
        say(f"{name} was half-registered; removed it: {obstacle}")
    return False


def _find_snapshot_to_complete(root: Path, version: ModelVersion) -> tuple[Snapshot | None, str]:
    """The snapshot that a half-registered version can be completed with, or why there is none.

    Only what is certain counts: if git does not answer, that is no reason.
    """
    try:
        snapshot = find_snapshot(version)
    except UserError as error:
        return None, str(error)  # what is stored is no snapshot
    if snapshot is None:
        return None, f"the run {version.run_id} has no snapshot"
    if not has_commit(root, snapshot.commit):
        return None, f"git has no commit {snapshot.commit}"
    tag = name_tag(int(version.version))
    if tag_exists(root, tag) and read_tag(root, tag) != snapshot:
        return None, f"git has the tag {tag} already, for another snapshot"
    return snapshot, ""


def _is_of(client: MlflowClient, run: str, workspace: str) -> bool:
    """Whether a run belongs to a workspace; a run that MLflow no longer has belongs to none."""
    try:
        return _find_workspace(client, client.get_run(run)) == workspace
    except MlflowException as error:
        if is_absent(error):
            return False
        raise


def _find_workspace(client: MlflowClient, run: Run) -> str | None:
    """The workspace of the retrain that a run is, or is nested in."""
    seen: set[str] = set()
    while parent := run.data.tags.get(MLFLOW_PARENT_RUN_ID):
        if parent in seen:
            return None  # a circle: no retrain made this
        seen.add(parent)
        run = client.get_run(parent)
    return run.data.tags.get(WORKSPACE)


def _release_dvc_locks(root: Path, say: Say) -> None:
    """Remove processes that have ended from DVC's list of who reads and writes what.

    DVC does so, too, but not if another process has the same number now, nor if DVC was killed
    while it wrote the list.
    """
    folder = root / TEMPORARY
    path = folder / RWLOCK_FILE
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder)):
        if not path.exists():
            return
        try:
            held = json.loads(path.read_text())
        except ValueError:
            path.unlink()
            say("DVC's list of locks was cut short: removed it")
            return
        write, read = held.get("write", {}), held.get("read", {})
        left = {
            "write": {out: holder for out, holder in write.items() if _holds_lock(holder)},
            "read": {dep: [reader for reader in read[dep] if _holds_lock(reader)] for dep in read},
        }
        if left != {"write": write, "read": read}:
            write_json(path, left)
            say("DVC's list of locks named processes that have ended: removed them")


def _holds_lock(holder: Mapping[str, Any]) -> bool:
    """Whether the process with the holder's number is the one that took the lock."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    # DVC records its arguments, but the first of them is not how the process was started.
    return " ".join(command).endswith(holder["cmd"].partition(" ")[2])


def _repair_dvc_lock(root: Path, say: Say) -> None:
    """Replace a dvc.lock that was cut short by the one of the commit, or remove it.

    DVC writes the file in place. What the older one lacks is in DVC's run cache.
    """
    path = root / LOCK_FILE
    if not path.exists() or _is_valid_lock(path.read_text(errors="replace")):
        return
    try:
        committed = read_file_at(root, "HEAD", LOCK_FILE)
    except UserError:
        committed = ""
    if _is_valid_lock(committed):
        write_text(path, committed)
        say(f"{LOCK_FILE} was cut short: took the one of the commit")
    else:
        path.unlink()
        say(f"{LOCK_FILE} was cut short: removed it")


def _is_valid_lock(text: str) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
    except (yaml.YAMLError, Invalid):
        return False
    return True
