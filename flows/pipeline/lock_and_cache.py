"""dvc.lock and data.dvc as typed objects, and the cached bytes that they name."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import yaml
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.processes.checked import Md5, RelativePath, StageName, describe_faults
from flows.processes.words import hash_md5
from flows.snapshots.snapshot import DATA_FILE, LOCK_FILE, Snapshot, read_commit
from mammo.base.errors import UserError

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class LockedStage:
    """A stage as dvc.lock has it; the mappings are from paths to DVC's hashes."""

    name: str
    deps: Mapping[str, str]
    outs: Mapping[str, str]
    params: Mapping[str, Any]  # by key of params.yaml; of another file, by FILE:key


def read_lock(snapshot: Snapshot) -> list[LockedStage]:
    """The stages of a snapshot's dvc.lock, in its order.

    Raises:
        UserError: if there is none, or it is not what DVC writes.
    """
    return parse_lock(snapshot.files.get(LOCK_FILE, ""), "dvc.lock")


def parse_lock(text: str, name: str, settings: str = "") -> list[LockedStage]:
    """The stages of a dvc.lock of this text and name, in its order.

    Args:
        text: of the dvc.lock.
        name: of it, for messages.
        settings: another file, besides params.yaml, that its stages depend on keys of.

    Raises:
        UserError: if it is not what DVC writes.
    """
    return [
        LockedStage(
            name=stage_name,
            deps={dep.path: dep.md5 for dep in stage.deps},
            outs={out.path: out.md5 for out in stage.outs},
            params={
                **stage.params.get("params.yaml", {}),
                **{f"{settings}:{key}": x for key, x in stage.params.get(settings, {}).items()},
            },
        )
        for stage_name, stage in _read(_Lock, text, name).stages.items()
    ]


def read_entry(root: Path, name: str) -> "LockEntry":
    """A stage's entry of a project's dvc.lock.

    Raises:
        UserError: if there is none, or it is not what DVC writes.
    """
    path = root / "dvc.lock"
    text = path.read_text(errors="replace") if path.exists() else ""
    if name not in _read(_Lock, text, "dvc.lock").stages:
        raise UserError(f"dvc.lock has no entry of the stage {name}")
    return _read_as(LockEntry, yaml.safe_load(text)["stages"][name], f"dvc.lock, stage {name}")


def collect_outs(stages: Iterable[LockedStage]) -> dict[str, str]:
    """The outs of all these stages: path and hash."""
    return {path: md5 for stage in stages for path, md5 in stage.outs.items()}


def read_data_out(snapshot: Snapshot) -> tuple[str, str]:
    """Path and hash of the raw data, as data.dvc names them.

    Raises:
        UserError: if data.dvc is missing or not what DVC writes.
    """
    return read_out(snapshot.files.get(DATA_FILE, ""), "data.dvc")


def is_import(snapshot: Snapshot) -> bool:
    """Whether the data come from another repository (`dvc import`), where DVC gets them from.

    Raises:
        UserError: if data.dvc is missing or not what DVC writes.
    """
    said = _read(_DvcFile, snapshot.files.get(DATA_FILE, ""), "data.dvc")
    return any("repo" in dep for dep in said.deps)


def read_out(text: str, name: str) -> tuple[str, str]:
    """Path and hash of what a .dvc file of this text and name tracks.

    Raises:
        UserError: if it is not what DVC writes.
    """
    (out,) = _read(_DvcFile, text, name).outs
    return out.path, out.md5


def read_sizes(root: Path, files: Iterable[str]) -> dict[str, int]:
    """Sizes in bytes of what files of DVC name, by DVC's hash, as DVC recorded them.

    Args:
        root: a project.
        files: each a dvc.lock or a .dvc file below it; one that is not there names nothing.

    Raises:
        UserError: if one of them is not what DVC writes.
    """
    found: dict[str, int] = {}
    for name in files:
        if not (root / name).is_file():
            continue
        text = (root / name).read_text(errors="replace")
        if name.endswith(".dvc"):
            outs = _read(_DvcFile, text, name).outs
        else:
            stages = _read(_Lock, text, name).stages.values()
            outs = [out for stage in stages for out in stage.outs]
        found |= {out.md5: out.size for out in outs}
    return found


def require_form(root: Path, snapshot: Snapshot) -> None:
    """Make sure, before DVC reads a snapshot from another machine, that its paths stay inside.

    What `dvc import` wrote names a source, from which DVC would fetch. A source is accepted from
    the commit alone, never from the machine that sent the snapshot.

    Args:
        root: a clone that holds the snapshot's commit.
        snapshot: from another machine.

    Raises:
        UserError: if its dvc.lock or data.dvc, where there is one, is not what DVC writes, or if
            data.dvc names a source that the commit does not name.
    """
    if LOCK_FILE in snapshot.files:
        read_lock(snapshot)
    text = snapshot.files.get(DATA_FILE)
    if text is not None:
        read_data_out(snapshot)
        if text != read_commit(root, snapshot.commit).files.get(DATA_FILE):
            _read(_OwnData, text, "data.dvc, which is not the commit's own")


class _Object(BaseModel):
    path: RelativePath
    md5: Md5
    size: Annotated[int, Field(ge=0)] = 0


class _Stage(BaseModel):
    deps: list[_Object] = []
    outs: list[_Object] = []
    params: dict[str, dict[str, Any]] = {}


class _Lock(BaseModel):
    stages: dict[StageName, _Stage]


class _DvcFile(BaseModel):
    deps: list[dict[str, Any]] = []  # a source, which only a commit's own may name
    outs: list[_Object] = Field(min_length=1, max_length=1)
    wdir: Literal[".", None] = None  # from where DVC would count the path


class _OwnOut(_Object):
    """What `dvc add` writes of a folder, and no more."""

    model_config = ConfigDict(extra="forbid")

    nfiles: int = 0
    hash: Literal["md5"] = "md5"
    isexec: bool = False
    desc: str = ""


class LockEntry(BaseModel):
    """A stage's entry of a dvc.lock, as another machine may send it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cmd: str | list[str]
    deps: list[_OwnOut] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[_OwnOut] = []


class _OwnData(BaseModel):
    """A data.dvc without a source."""

    model_config = ConfigDict(extra="forbid")

    outs: list[_OwnOut] = Field(min_length=1, max_length=1)
    md5: str = ""
    desc: str = ""
    wdir: Literal[".", None] = None


F = TypeVar("F", _Lock, _DvcFile, _OwnData, LockEntry)


def _read(form: type[F], text: str, name: str) -> F:
    try:
        return _read_as(form, yaml.safe_load(text), name)
    except (RecursionError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{name}: not what DVC writes ({error!r})") from None


def _read_as(form: type[F], content: Any, name: str) -> F:
    try:
        return form.model_validate(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{name}: not what DVC writes ({describe_faults(error)})") from None


def hash_room(folder: Path) -> str:
    """DVC's hash of a folder of code as a dep: of every file but Python's bytecode.

    Args:
        folder: it must hold a commit's files only, and what programs wrote beside them.
    """
    return hash_files(hash_each_file(folder))


def hash_each_file(folder: Path) -> dict[str, str]:
    """MD5 of each file below a folder but Python's bytecode, by its path in the folder, sorted."""
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        file.as_posix(): hash_md5(folder / file)
        for file in files
        if "__pycache__" not in file.parts
    }


def hash_files(hashes: Mapping[str, str]) -> str:
    """DVC's hash of a folder.

    Args:
        hashes: of each file, by its path below the folder.
    """
    make_tree: Callable[[], Any] = Tree  # which has no types
    tree = make_tree()
    for name, md5 in hashes.items():
        tree.add(PurePosixPath(name).parts, None, HashInfo("md5", md5))
    tree.digest()
    return str(tree.hash_info.value)


@dataclass(frozen=True)
class Cache:
    """DVC's local cache: files named by the MD5 of their bytes, folders as lists of such files."""

    folder: Path

    def path(self, md5: str) -> Path:
        """The path that the object of a hash has in the cache, if the cache holds it."""
        return self.folder / md5[:2] / md5[2:]

    def listing(self, md5: str) -> dict[str, str]:
        """Paths in a cached folder, and their hashes.

        Raises:
            UserError: if it is not what DVC writes, or a path leads out of the folder.
        """
        try:
            found = {e["relpath"]: e["md5"] for e in json.loads(self.path(md5).read_text())}
            good = all(_is_inside(path) and _MD5.fullmatch(hash_) for path, hash_ in found.items())
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise UserError(f"the list {md5} in DVC's cache is not what DVC writes")
        return found

    def objects(self, path: str, md5: str) -> Iterator[tuple[str, str]]:
        """What an out consists of: each file's path and hash, a folder's list before its files.

        Stops after a folder's list if that is missing or damaged.
        """
        yield path, md5
        if md5.endswith(".dir") and self.state(md5) == "good":
            for name, of_file in self.listing(md5).items():
                yield f"{path}/{name}", of_file

    def holds(self, path: str, md5: str) -> bool:
        """Whether all files of an out are there; their bytes are not looked at but for a list's."""
        return all(self.path(of_file).exists() for _, of_file in self.objects(path, md5))

    def state(self, md5: str) -> str:
        """`good`, `missing`, or `damaged` if the bytes are not those of the hash."""
        try:
            found = hash_md5(self.path(md5))
        except OSError:
            return "missing"
        return "good" if found == md5.removesuffix(".dir") else "damaged"


def _is_inside(path: str) -> bool:
    """Whether a path stays in its folder. Names of data files may be anything else."""
    return not path.startswith("/") and ".." not in path.split("/")


def name_default_remote(root: Path) -> str | None:
    """The name of DVC's default remote, or None if there is none."""
    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        return str(name) if name else None


def open_cache(root: Path) -> Cache:
    """The cache of the DVC project in `root`."""
    with Repo(str(root)) as repo:
        return Cache(Path(repo.cache.local.path))
