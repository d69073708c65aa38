"""The clone in which a worker runs flows, brought to a commit first if the run asks for one.

`enter` is the pull step of prefect.yaml. Prefect runs it in a process of its own, so a flow always
loads the code that the step has checked out.
"""

import os
import subprocess
from pathlib import Path
from uuid import UUID

from prefect.runtime import flow_run

from flows.processes.checked import Commit, validate
from flows.processes.folder_lock import only_one
from flows.processes.run_dvc import DVC
from flows.processes.run_git import fetch, git, is_ancestor, list_changes
from flows.snapshots.snapshot import DATA_FILE, LOCK_FILE, find_changed_files, open_index
from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError

CLONE = "MAMMOFLOW_CLONE"
"""The environment variable that tells a worker's flow runs where its clone is."""


def enter() -> dict[str, str]:
    """Enter the worker's clone, and bring it to the run's parameter `commit`, if it has one.

    Raises:
        UserError: if CLONE is not set, or the clone cannot go to the commit without losing work.
    """
    clone = os.environ.get(CLONE)
    if clone is None:
        raise UserError(f"the worker does not know its clone ({CLONE}): start it with mammoflow up")
    os.chdir(clone)
    commit = flow_run.get_parameters().get("commit")
    if commit:
        try:
            wanted = validate(Commit, commit, "the run's parameter `commit`")
            with only_one(Path(clone)):
                fast_forward(Path(clone), wanted)
        except UserError as error:
            _crash(str(error))
            raise
    return {"directory": clone}


def _crash(why: str) -> None:
    """Record the flow run as crashed, with the reason: Prefect would give the process's status."""
    if not flow_run.id:
        return  # called by hand
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.id), Crashed(message=why))


def fast_forward(root: Path, commit: str) -> None:
    """Bring the branch of a clone forward to a commit, and data/ with it.

    A dvc.lock that the last retrain wrote is kept if the commits do not change it, and replaced if
    they do: DVC's cache keeps what it names. A clone that is at the commit, or past it, stays as it
    is.

    Raises:
        UserError: if there are other changes that are not committed, or the branch has diverged.
    """
    fetch(root, "--all")
    if is_ancestor(root, commit, "HEAD"):
        return
    with open_index(root, "HEAD") as index:
        status = find_changed_files(root, index)
    changed = [name for name in status if name != LOCK_FILE]
    if changed:
        raise UserError(
            f"the clone {root} cannot go to the commit {commit}: not committed: "
            f"{', '.join(changed)}; commit or discard them there"
        )
    moved = set(list_changes(root, "HEAD", commit))
    lock = root / LOCK_FILE
    written = lock.read_bytes().decode() if len(status) and lock.exists() else None
    if written is not None:
        git(root, "checkout", "--quiet", "HEAD", "--", LOCK_FILE)
    try:
        # As options: `branch.NAME.mergeOptions` would override a setting.
        only = ("--ff-only", "--no-squash", "--no-autostash", "--no-verify-signatures")
        git(root, "merge", "--quiet", *only, commit)
    finally:
        if written is not None and not (LOCK_FILE in moved and is_ancestor(root, commit, "HEAD")):
            write_text(lock, written)
    if DATA_FILE in moved:
        _pull_data(root)


def _pull_data(root: Path) -> None:
    """Bring data/ to the new data.dvc; DVC refuses if that would lose files."""
    pull = [*DVC, "--wait-for-lock", "pull", DATA_FILE]
    result = subprocess.run(pull, cwd=root, capture_output=True, text=True)
    if result.returncode != 0:
        raise UserError(f"dvc pull {DATA_FILE}, in {root}: {result.stderr.strip()}")
