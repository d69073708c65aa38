"""One stage's share of DVC's run cache and outs, between the local cache and the default remote.

`dvc push --run-cache` and `dvc fetch --run-cache` take along every run that the cache ever saw and
all that these made. A worker and its parent need one stage of one run; so this does what the two
commands do, with DVC's own objects, for a single entry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException, OutputNotFoundError
from dvc.repo import Repo
from dvc.stage import PipelineStage, create_stage
from dvc.stage.cache import _get_stage_hash
from dvc.stage.loader import StageLoader
from dvc_objects.fs import generic

from flows.pipeline.lock_and_cache import default_remote
from flows.processes.follow import follow
from flows.processes.run_dvc import DVC
from mammo.base.errors import UserError


@contextmanager
def _opened(root: Path, name: str) -> Iterator[tuple[Repo, Any]]:
    """The project, under DVC's lock, and a stage of it with its deps as they are now.

    Raises:
        UserError: with DVC's own words if it cannot do what is asked of it.
    """
    try:
        with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
            stage = repo.stage.load_one(path=str(Path(repo.root_dir) / "dvc.yaml"), name=name)
            yield repo, stage
    except DvcException as error:
        raise UserError(f"DVC, stage {name}: {error}") from error


def require_remote(root: Path) -> None:
    """Make sure that there is a default remote, through which workers get and give files.

    Raises:
        UserError: if there is none.
    """
    if default_remote(root) is None:
        raise UserError(
            "stages in a pool exchange their files through DVC's default remote, and there is "
            "none: set one with `dvc remote add -d NAME URL`"
        )


def push_deps(root: Path, name: str) -> None:
    """Push those deps of a stage that DVC tracks: outs of other stages, or of a .dvc file.

    Raises:
        CommandError: with DVC's last lines.
    """
    _for_deps("push", root, name)


def pull_deps(root: Path, name: str) -> None:
    """Pull what `push_deps` pushed, into the folder too.

    Raises:
        CommandError: with DVC's last lines.
    """
    _for_deps("pull", root, name)


def _for_deps(what: str, root: Path, name: str) -> None:
    with _opened(root, name) as (repo, stage):
        targets = [
            target for dep in stage.deps if dep.is_in_repo for target in _tracked_by_dvc(repo, dep)
        ]
    if targets:
        follow([*DVC, "--wait-for-lock", what, "--", *targets], root, lambda line: None)


def _tracked_by_dvc(repo: Repo, dep: Any) -> list[str]:
    """A dep that is an out or in one; or the outs in it, if it is a folder that git tracks."""
    try:
        repo.find_outs_by_path(dep.fs_path, strict=False)
        return [str(dep.def_path)]
    except OutputNotFoundError:
        pass  # then it is no out itself, but outs may be in it
    try:
        outs = repo.find_outs_by_path(dep.fs_path, recursive=True)
    except OutputNotFoundError:
        return []
    return [str(Path(out.fs_path).relative_to(repo.root_dir)) for out in outs]


def at_hand(root: Path, name: str) -> bool:
    """Whether `dvc repro` would have nothing to run: up to date, or all in the local cache."""
    with _opened(root, name) as (repo, stage):
        if not stage.changed():
            return True
        stage.save_deps()
        entry = repo.stage_cache._load(stage)
        return entry is not None and _of(repo, stage, entry).outs_cached()


def push_result(root: Path, name: str) -> None:
    """Push a finished stage's outs, then its entry of the run cache, to the default remote."""
    with _opened(root, name) as (repo, stage):
        entry = repo.stage_cache._load(stage)
        if entry is None:
            raise UserError(f"the stage {name} left no entry in DVC's run cache: is it `persist`?")
        for objects in _of(repo, stage, entry).get_used_objs().values():
            _all_went(repo.cloud.push(objects), name, "pushed")
        local, remote = repo.cache.legacy, _remote(repo)
        _copy_entry(stage, local.fs, local.path, remote.fs, remote.path)


def fetch_result(root: Path, name: str) -> None:
    """Fetch what a worker pushed of a stage into the local cache; `dvc repro` then restores it."""
    with _opened(root, name) as (repo, stage):
        stage.save_deps()
        local, remote = repo.cache.legacy, _remote(repo)
        _copy_entry(stage, remote.fs, remote.path, local.fs, local.path)
        entry = repo.stage_cache._load(stage)
        if entry is None:
            raise UserError(
                f"the worker's run of {name} is not in the remote: does the worker's clone have "
                f"the same default remote?"
            )
        for objects in _of(repo, stage, entry).get_used_objs().values():
            _all_went(repo.cloud.pull(objects), name, "fetched")


def _of(repo: Repo, stage: Any, entry: Any) -> Any:
    """A stage as an entry of the run cache has it: with the outs that it then made."""
    outs = [out["path"] for out in entry["outs"]]
    then = create_stage(
        PipelineStage, repo, stage.path, cmd=entry["cmd"], wdir=stage.wdir, outs=outs
    )
    StageLoader.fill_from_lock(then, entry)
    return then


def _remote(repo: Repo) -> Any:
    return repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")


def _copy_entry(stage: Any, from_fs: Any, source: str, to_fs: Any, target: str) -> None:
    """Copy the entries of a stage with these deps; a run cache is `runs/<2>/<key>/<value>`."""
    key = _get_stage_hash(stage)
    folder = from_fs.join(source, "runs", key[:2], key)
    if not from_fs.exists(folder):
        return
    for path in from_fs.find(folder):
        there = to_fs.join(target, "runs", key[:2], key, from_fs.name(path))
        generic.copy(from_fs, path, to_fs, there)


def _all_went(result: Any, name: str, done: str) -> None:
    if result.failed:
        raise UserError(f"{len(result.failed)} files of the stage {name} could not be {done}")
