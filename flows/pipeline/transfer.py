"""Moves one stage's inputs and outs between this folder and a worker's, by DVC's default remote.

The worker hands back the stage's entry of its dvc.lock, which names what it made. This folder's
dvc.lock gets the entry once the worker's outs have come and fit this folder's own inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException, OutputNotFoundError
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError
from dvc.stage.loader import StageLoader
from dvc_data.hashfile.hash_info import HashInfo

from flows.pipeline.lock_and_cache import LockEntry, name_default_remote, open_cache, read_entry
from flows.pipeline.locked_repo import open_locked
from flows.processes.follow import follow, ignore
from flows.processes.run_dvc import DVC
from flows.processes.words import shorten_list
from mammo.base.errors import UserError


@contextmanager
def _open_stage(root: Path, name: str) -> Iterator[tuple[Repo, Any]]:
    """The project, under DVC's lock, and a stage of it.

    Raises:
        UserError: with DVC's own words if it cannot do what is asked of it.
    """
    try:
        with open_locked(root) as repo:
            stage = repo.stage.load_one(path=str(Path(repo.root_dir) / "dvc.yaml"), name=name)
            yield repo, stage
    except DvcException as error:
        raise UserError(f"DVC, stage {name}: {error}") from error


def require_remote(root: Path) -> None:
    """Make sure that there is a default remote, through which workers exchange files with us.

    Raises:
        UserError: if there is none.
    """
    if name_default_remote(root) is None:
        raise UserError(
            "stages in a pool exchange their files through DVC's default remote, and there is "
            "none: set one with `dvc remote add -d NAME URL`"
        )


def push_deps(root: Path, name: str) -> None:
    """Push those deps of a stage that DVC tracks: outs of other stages, or of a .dvc file.

    Raises:
        UserError: if a worker could not hand back all outs of the stage.
        CommandError: with DVC's last lines.
    """
    with _open_stage(root, name) as (_, stage):
        if kept := [out.def_path for out in stage.outs if not out.use_cache]:
            raise UserError(
                f"a worker cannot hand back {shorten_list(kept)} of the stage {name}, which "
                f"dvc.yaml keeps out of DVC's cache: take `cache: false` away, or the stage's pool"
            )
    _transfer_deps("push", root, name)


def pull_deps(root: Path, name: str) -> None:
    """Pull what `push_deps` pushed, into the folder too.

    Raises:
        CommandError: with DVC's last lines.
    """
    _transfer_deps("pull", root, name)


def _transfer_deps(what: str, root: Path, name: str) -> None:
    with _open_stage(root, name) as (repo, stage):
        targets = [
            target for dep in stage.deps if dep.is_in_repo for target in _find_tracked(repo, dep)
        ]
    if targets:
        follow([*DVC, "--wait-for-lock", what, "--", *targets], root, ignore)


def _find_tracked(repo: Repo, dep: Any) -> list[str]:
    """What DVC tracks of a dep: the dep itself, or the outs in it if it is a folder of git's."""
    try:
        repo.find_outs_by_path(dep.fs_path, strict=False)
        return [str(dep.def_path)]
    except OutputNotFoundError:
        pass  # it is no out itself, but outs may be in it
    try:
        outs = repo.find_outs_by_path(dep.fs_path, recursive=True)
    except OutputNotFoundError:
        return []
    return [str(Path(out.fs_path).relative_to(repo.root_dir)) for out in outs]


def is_at_hand(root: Path, name: str) -> bool:
    """Whether `dvc repro` would have nothing to run: up to date, or all in the local cache.

    Args:
        root: the project; the current folder, from which DVC's run cache counts.
        name: of the stage.
    """
    with _open_stage(root, name) as (repo, stage):
        if not stage.changed():
            return True
        stage.save_deps()
        for out in stage.outs:
            out.hash_info = HashInfo()  # dvc.lock's, which may be of other deps
        try:
            repo.stage_cache.restore(stage, dry=True)
        except RunCacheNotFoundError:
            return False
        return True


def push_result(root: Path, name: str) -> LockEntry:
    """Push a finished stage's outs to the default remote; return its entry of dvc.lock.

    Raises:
        UserError: if dvc.lock has no entry of the stage.
        CommandError: with DVC's last lines, if the remote does not take all outs.
    """
    entry = read_entry(root, name)
    follow([*DVC, "--wait-for-lock", "push", "--", name], root, ignore)
    return entry


def pull_result(root: Path, name: str, entry: LockEntry) -> None:
    """Take over what a worker has made of a stage: its outs, and then its entry of dvc.lock.

    Args:
        root: the project; the current folder, from which DVC's run cache counts.
        name: of the stage.
        entry: as `push_result` returned it to the worker.

    Raises:
        UserError: if the worker ran another command, or with other inputs or settings than those of
            this folder, or made other outs than dvc.yaml declares; if the remote lacks an out, or
            has other bytes. dvc.lock is then as before.
    """
    with _open_stage(root, name) as (repo, stage):
        if {out.path for out in entry.outs} != {out.def_path for out in stage.outs}:
            raise UserError(f"the worker's run of {name} made other outs than dvc.yaml declares")
        StageLoader.fill_from_lock(stage, entry.model_dump(exclude_unset=True))
        if entry.cmd != stage.cmd or stage.changed_deps():
            raise UserError(
                f"the worker ran {name} by another command, or with other inputs or settings, than "
                f"this folder has: if they were changed meanwhile, run this again"
            )
        for objects in stage.get_used_objs().values():
            if failed := repo.cloud.pull(objects).failed:
                raise UserError(
                    f"DVC's remote lacks {len(failed)} files that the worker's run of {name} made: "
                    f"does the worker's clone have the same default remote?"
                )
        _check_bytes(root, name, entry)
        stage.checkout(force=True)
        stage.save()
        stage.commit()
        stage.dump(update_pipeline=False)


def _check_bytes(root: Path, name: str, entry: LockEntry) -> None:
    """Make sure that the cache has an entry's outs with the bytes of their hashes.

    Raises:
        UserError: if it has not; damaged files are removed, for the next try to fetch them again.
    """
    cache = open_cache(root)
    damaged = []
    for out in entry.outs:
        for path, md5 in cache.objects(out.path, out.md5):
            if cache.state(md5) != "good":
                damaged.append(path)
                cache.path(md5).unlink(missing_ok=True)
    if damaged:
        raise UserError(
            f"DVC's remote has other bytes than the worker's run of {name} made: "
            f"{shorten_list(damaged)}"
        )
