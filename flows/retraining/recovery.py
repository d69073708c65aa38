"""What a retrain does about retrains that were cut short before it, and about one beside it.

Every retrain begins with this. It holds its folder's lock, which the system lets go of however the
process ends; so whatever another retrain of this folder has left unfinished, nobody works on it.
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
from flows.processes.run_git import file_at, has_commit
from flows.processes.words import Say
from flows.snapshots.snapshot import Snapshot, read_tag, tag_exists
from flows.tracking.aliases import ever_champion
from flows.tracking.register import WHOLE, complete, git_tag
from flows.tracking.registry import MODEL, WORKSPACE, absent, find_snapshot, run_of
from mammo.base.atomic_files import write_json, write_text
from mammo.base.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

LOCK = "dvc.lock"
REAPER = Path(__file__).parents[1] / "processes" / "reaper.py"

_watchers: "list[subprocess.Popen[bytes]]" = []  # kept, for their pipes to stay open


def one_at_a_time(flow: Callable[P, R]) -> Callable[P, R | State[Any]]:
    """Let a flow run only while no other one that is so wrapped works in the current folder."""

    @functools.wraps(flow)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R | State[Any]:
        try:
            with only_one(Path.cwd()):
                _take_server_along()
                return flow(*args, **kwargs)
        except UserError as error:
            return Failed(message=str(error))

    return alone


def _take_server_along() -> None:
    """Prefect's temporary server ends with us, but would stay if we were killed: see to it."""
    for server in (child for child in psutil.Process().children() if _is_server(child)):
        # Its stdin ends when we do, however we do.
        command = [sys.executable, str(REAPER), str(server.pid), repr(server.create_time())]
        _watchers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def _is_server(child: psutil.Process) -> bool:
    try:
        return "uvicorn" in child.cmdline()
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


def workspace_id(root: Path) -> str:
    """A name for this folder on this machine, which tells nothing of either; a copy has another."""
    path = root / TEMPORARY / "workspace"
    if not path.exists():
        write_text(path, secrets.token_hex(16))
    return hashlib.sha256(f"{path.read_text()}{root.resolve()}".encode()).hexdigest()[:16]


def repair_dvc(root: Path, say: Say) -> None:
    """Remove locks whose holders are dead, and a dvc.lock that was cut short.

    Raises:
        UserError: if DVC is busy in this folder.
    """
    try:
        _release_locks(root, say)
    except DvcException as error:
        raise UserError(f"DVC is busy in this folder: {error}") from None
    _mend_lock(root, say)


def repair_registry(root: Path, experiment: str, say: Say) -> None:
    """Make half-registered versions of this folder whole, and end the runs it left running."""
    client, mine = MlflowClient(), workspace_id(root)
    _finish_versions(client, root, mine, say)
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'", max_results=1000):
        if _is_of(client, str(run.info.run_id), mine):
            versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
            status = "FINISHED" if any(WHOLE in version.tags for version in versions) else "KILLED"
            client.set_terminated(run.info.run_id, status)
            say(f"the run {run.info.run_name} in MLflow was left running: now {status.lower()}")


def _finish_versions(client: MlflowClient, root: Path, mine: str, say: Say) -> None:
    """Complete a version that lacks its last tag, or remove it where that cannot be done.

    A run has one version at most: a request that MLflow's client repeated may have made two.
    """
    found = client.search_model_versions(f"name = '{MODEL}'")
    done = {version.run_id for version in found if WHOLE in version.tags}
    for version in sorted(found, key=lambda version: int(version.version)):
        if WHOLE in version.tags:
            continue
        try:
            run = run_of(version)
        except UserError:
            continue  # without a run it is none of ours
        if not _is_of(client, run, mine):
            continue  # its own retrain may be at it just now
        name = f"{MODEL} version {version.version}"
        try:
            if run in done:
                snapshot, never = None, "its run has another version"
            else:
                snapshot, never = _snapshot_to_complete(root, version)
            if snapshot is not None:
                complete(root, snapshot, int(version.version))
        except UserError as error:
            say(f"{name} is half-registered, and stays so until the next time: {error}")
            continue
        if snapshot is None:
            if int(version.version) in ever_champion():  # no half-registered one was
                say(f"{name} lacks the tag {WHOLE}, but stays: {never}")
                continue
            client.delete_model_version(MODEL, version.version)
            say(f"{name} was half-registered; removed it: {never}")
            continue
        done.add(run)
        client.set_terminated(run, "FINISHED")
        say(f"{name} was half-registered: completed it")


def _snapshot_to_complete(root: Path, version: ModelVersion) -> tuple[Snapshot | None, str]:
    """The snapshot that a half-registered version can be completed with; None, and why, if never.

    Only what is known for certain counts: git that does not answer says nothing.
    """
    try:
        snapshot = find_snapshot(version)
    except UserError as error:
        return None, str(error)  # no snapshot, but something else in its place
    if snapshot is None:
        return None, f"the run {version.run_id} has no snapshot"
    if not has_commit(root, snapshot.commit):
        return None, f"git has no commit {snapshot.commit}"
    tag = git_tag(int(version.version))
    if tag_exists(root, tag) and read_tag(root, tag) != snapshot:
        return None, f"git has the tag {tag} already, for another snapshot"
    return snapshot, ""


def _is_of(client: MlflowClient, run: str, workspace: str) -> bool:
    """Whether a run belongs to a workspace; one that is gone from MLflow belongs to none."""
    try:
        return _workspace_of(client, client.get_run(run)) == workspace
    except MlflowException as error:
        if absent(error):
            return False
        raise


def _workspace_of(client: MlflowClient, run: Run) -> str | None:
    """The workspace of the retrain that a run, or a run that it is nested in, belongs to."""
    seen: set[str] = set()
    while parent := run.data.tags.get(MLFLOW_PARENT_RUN_ID):
        if parent in seen:
            return None  # a circle: nobody's retrain
        seen.add(parent)
        run = client.get_run(parent)
    return run.data.tags.get(WORKSPACE)


def _release_locks(root: Path, say: Say) -> None:
    """Take the entries of processes that have ended out of DVC's list of who reads and writes what.

    DVC does so too, but not if another process has got the number since, nor if it was killed
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
            "write": {out: holder for out, holder in write.items() if _at_work(holder)},
            "read": {dep: [reader for reader in read[dep] if _at_work(reader)] for dep in read},
        }
        if left != {"write": write, "read": read}:
            write_json(path, left)
            say("DVC's list of locks named processes that have ended: removed them")


def _at_work(holder: Mapping[str, Any]) -> bool:
    """Whether the process with this number is the one that took the lock."""
    try:
        command = psutil.Process(holder["pid"]).cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    # DVC notes its arguments, the first of which is not how it was started.
    return " ".join(command).endswith(holder["cmd"].partition(" ")[2])


def _mend_lock(root: Path, say: Say) -> None:
    """Replace a dvc.lock that was cut short by the commit's, if any: the run cache has the rest.

    DVC writes it in place.
    """
    path = root / LOCK
    if not path.exists() or _whole(path.read_text(errors="replace")):
        return
    try:
        committed = file_at(root, "HEAD", LOCK)
    except UserError:
        committed = ""
    if _whole(committed):
        write_text(path, committed)
        say(f"{LOCK} was cut short: took the one of the commit")
    else:
        path.unlink()
        say(f"{LOCK} was cut short: removed it")


def _whole(text: str) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
    except (yaml.YAMLError, Invalid):
        return False
    return True
