"""Which objects of DVC's cache, and of its default remote, are not named anywhere any more.

Objects are named in every dvc.lock and .dvc file: of each commit that git has a name for (branches,
those of the remotes, tags, DVC's experiments, worktrees), of the working tree, and of each version
in the registry. `dvc gc` is not exact enough for this. It knows the branches of this clone only. It
keeps what the dvc.yaml of a commit declares, and not all that its dvc.lock names. It removes the
files of a folder whose list it cannot read. And it leaves entries of the run cache that name
removed objects.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo
from dvc_data.hashfile.db import get_index

from flows.processes.run_git import fetch, git, has_commit, list_entries, list_remotes, succeeds
from flows.pruning.policy import Survey, Waste
from flows.publishing.publish import fetch_tag
from flows.tracking.names import name_tag
from flows.tracking.registry import find_snapshot, list_versions, open_store
from mammo.base.errors import UserError

_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")
_NAMES = re.compile(r"(?:.*/)?(?:dvc\.lock|[^/]+\.dvc)")  # of files whose text names objects
_NOT_OURS = {".git", ".dvc", ".venv"}


@dataclass(frozen=True)
class _StoredObject:
    """An object as its store has it."""

    md5: str
    path: str
    size: int
    changed: float  # seconds since 1970


def find_superseded_objects(root: Path, before: float, remote: bool) -> Survey:
    """Objects that are named nowhere and are older than a time, and run-cache entries of them.

    Args:
        root: a clone in which nobody else works.
        before: seconds since 1970.
        remote: look on DVC's default remote as well.

    Raises:
        UserError: if git's remotes, which may have more branches and tags, do not answer.
    """
    what, kept = "superseded outs in DVC's cache", "were left: "
    if remote and list_remotes(root):
        fetch(root, "--all", "--tags")
    with Repo(str(root)) as repo:
        remote_store = _open_remote(repo) if remote else None
        cache = repo.cache.local
        if remote and remote_store is None:
            return Survey(notes=["DVC has no default remote: nothing was looked for there"])
        try:
            named = _find_named(root, [odb for odb in (cache, remote_store) if odb is not None])
        except UserError as error:
            return Survey(notes=[f"{what} {kept}{error}"])
        found = Survey()
        if Path(cache.path).resolve().is_relative_to(root.resolve()):
            found += Survey([_find_waste(what, cache, repo.cache.legacy, named, before)])
        else:
            found += Survey(notes=[f"{what} {kept}other clones may use {cache.path}, too"])
        if remote_store is not None:
            legacy = repo.cloud.get_remote_odb(None, "gc", hash_name="md5-dos2unix")
            name = repo.config["core"]["remote"]
            what = f"superseded outs on DVC's remote {name}"
            found += Survey([_find_waste(what, remote_store, legacy, named, before)])
        return found


def _open_remote(repo: Repo) -> Any:
    if not repo.config["core"].get("remote"):
        return None
    return repo.cloud.get_remote_odb(None, "gc", hash_name="md5")


def _find_waste(what: str, odb: Any, legacy: Any, named: set[str], before: float) -> Waste:
    """What is to be removed from a store: `odb` has its objects, `legacy` its run cache."""
    unnamed = [one for one in _list_objects(odb) if one.md5 not in named and one.changed < before]

    def remove() -> None:
        # Entries of the run cache first: DVC would take the newest of them for complete. Then the
        # lists of folders, then files: if this is cut short, no list names a removed file.
        _remove_entries(legacy, {one.md5 for one in unnamed})
        for lists in (True, False):
            paths = [one.path for one in unnamed if one.md5.endswith(".dir") is lists]
            if paths:
                odb.fs.remove(paths)
        if unnamed:
            get_index(odb).clear()  # DVC's record of what is on a remote

    return Waste(what, len(unnamed), sum(one.size for one in unnamed), remove)


def _list_files(odb: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and details of each file in a folder of a store."""
    files = odb.fs.fs.fs if odb.fs.protocol == "local" else odb.fs.fs  # DVC's own gives no details
    if odb.fs.exists(folder):
        yield from files.find(folder, detail=True).items()


def _list_objects(odb: Any) -> Iterator[_StoredObject]:
    for path, info in _list_files(odb, odb.path):
        try:
            md5 = odb.path_to_oid(path)
        except ValueError:
            continue  # not DVC's file
        yield _StoredObject(md5, path, int(info["size"] or 0), _find_change_time(info))


def _find_change_time(info: dict[str, Any]) -> float:
    """When a file was last changed, in seconds since 1970; infinite if the store does not tell."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        at = info.get(key)
        if isinstance(at, str):
            at = datetime.fromisoformat(at)
        if isinstance(at, datetime):
            return at.timestamp()
        if isinstance(at, int | float):
            return float(at)
    return float("inf")


def _remove_entries(legacy: Any, gone: set[str]) -> None:
    """Remove entries of the run cache by which DVC would restore an out that was removed."""
    if not gone:
        return
    fs = legacy.fs
    entries = [path for path, _ in _list_files(legacy, fs.join(legacy.path, "runs"))]

    def stale(path: str) -> bool:
        with fs.open(path, encoding="utf-8") as file:
            try:
                entry = yaml.safe_load(file)
                return any(out.get("md5") in gone for out in entry.get("outs", []))
            except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
                return False  # DVC itself removes such an entry

    with ThreadPoolExecutor(8) as pool:
        old = [
            path
            for path, is_stale in zip(entries, pool.map(stale, entries), strict=True)
            if is_stale
        ]
    if old:
        fs.remove(old)


def _find_named(root: Path, stores: list[Any]) -> set[str]:
    """The hashes of all named objects, also of those in folders.

    Args:
        root: the clone.
        stores: where the lists of folders may be, the nearest first.

    Raises:
        UserError: if it cannot be told what a registered version needs.
    """
    named: set[str] = set()
    for text in (*_read_commits(root, _list_commits(root)), *_read_folder(root)):
        named |= set(_HASH.findall(text))
    owners: dict[str, str] = {}
    for owner, text in _read_versions(root):
        named |= set(_HASH.findall(text))
        owners = dict.fromkeys(_read_outs(text), owner) | owners  # the first owner stays
    for md5 in [md5 for md5 in named if md5.endswith(".dir")]:
        members = _read_members(md5, stores)
        if members is not None:
            named |= members
        elif md5 in owners:
            raise UserError(
                f"what {owners[md5]} consists of cannot be told: the list {md5} of a folder is "
                f"neither in DVC's cache nor on a remote that was looked at; `dvc fetch` it, or "
                f"run `mammoflow publish` in the clone that registered it and then this with "
                f"--remote"
            )
    return named


def _read_outs(text: str) -> set[str]:
    """The hashes of the outs in a dvc.lock or .dvc file; deps need not be in the cache."""
    try:
        found = yaml.safe_load(text)
        stages = [*found.get("stages", {}).values(), found]
        return {str(out["md5"]) for stage in stages for out in stage.get("outs", [])}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return set(_HASH.findall(text))


def _list_commits(root: Path) -> list[str]:
    """The commits that git has a name for."""
    names = git(root, "for-each-ref", "--format=%(objectname)").split()
    trees = git(root, "worktree", "list", "--porcelain").splitlines()
    names += [line.split()[1] for line in trees if line.startswith("HEAD ")]
    return [*dict.fromkeys(name for name in names if set(name) != {"0"})]


def _read_commits(root: Path, commits: Iterable[str]) -> Iterator[str]:
    """The dvc.lock and .dvc files of commits; a text that several of them have comes once."""
    seen: set[str] = set()
    for commit in commits:
        if not succeeds(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}"):
            continue  # a tag of a file
        for entry in list_entries(root, "ls-tree", "-r", "-z", "--full-tree", f"{commit}^{{tree}}"):
            made, _, path = entry.partition("\t")
            blob = made.split()[2]
            if _NAMES.fullmatch(path) and blob not in seen:
                seen.add(blob)
                yield git(root, "cat-file", "blob", blob)


def _read_folder(root: Path) -> Iterator[str]:
    """The dvc.lock and .dvc files of the working tree, whether git knows them or not."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _NOT_OURS]
        for file in files:
            if _NAMES.fullmatch(file):
                yield (Path(folder) / file).read_text(errors="replace")


def _read_versions(root: Path) -> Iterator[tuple[str, str]]:
    """Owner and text of the dvc.lock and .dvc files of registered versions, in git and MLflow.

    Raises:
        UserError: if a version has neither.
    """
    open_store(root)
    for version in list_versions():
        owner, number = f"version {version.version}", int(version.version)
        try:
            snapshot = find_snapshot(version)
        except UserError:
            snapshot = None  # it was replaced by text that names no objects
        if fetch_tag(root, number) is not None:
            if snapshot is None or not has_commit(root, snapshot.commit):
                raise UserError(
                    f"what {owner} needs cannot be told: neither this clone nor a remote of it has "
                    f"the git tag {name_tag(number)} or its commit; run `mammoflow publish "
                    f"{number}` in the clone that registered it, then this again"
                )
            yield from ((owner, text) for text in _read_commits(root, [snapshot.commit]))
        if snapshot is not None:
            yield from (
                (owner, text) for name, text in snapshot.files.items() if _NAMES.fullmatch(name)
            )
    for tag in git(root, "for-each-ref", "--format=%(refname)", "refs/tags/model").split():
        yield from ((tag, text) for text in _read_commits(root, [tag]))


def _read_members(md5: str, stores: list[Any]) -> set[str] | None:
    """The hashes of a folder's files, or None if no store has its complete list."""
    for odb in stores:
        try:
            with odb.fs.open(odb.oid_to_path(md5), "rb") as file:
                content = file.read()
        except OSError:
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir"):
            return {str(entry["md5"]) for entry in json.loads(content)}
    return None
