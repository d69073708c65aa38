"""dvc.lock and data.dvc as typed objects, and the cached bytes that they name."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

from flows.snapshot import Snapshot
from mammo.errors import UserError


@dataclass(frozen=True)
class LockedStage:
    """A stage as dvc.lock has it; the mappings are from paths to DVC's hashes."""

    name: str
    deps: Mapping[str, str]
    outs: Mapping[str, str]
    params: Mapping[str, Any]  # by key of params.yaml


def read_lock(snapshot: Snapshot) -> list[LockedStage]:
    """The stages of a snapshot's dvc.lock, in its order.

    Raises:
        UserError: if there is none, or it is not what DVC writes.
    """
    try:
        stages = yaml.safe_load(snapshot.files["dvc.lock"])["stages"]
        return [
            LockedStage(
                name=name,
                deps={dep["path"]: dep["md5"] for dep in stage.get("deps", [])},
                outs={out["path"]: out["md5"] for out in stage.get("outs", [])},
                params=stage.get("params", {}).get("params.yaml", {}),
            )
            for name, stage in stages.items()
        ]
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"dvc.lock: not what DVC writes ({error!r})") from None


def data_out(snapshot: Snapshot) -> tuple[str, str]:
    """Path and hash of the raw data, as data.dvc names them.

    Raises:
        UserError: if data.dvc is missing or not what DVC writes.
    """
    try:
        (out,) = yaml.safe_load(snapshot.files["data.dvc"])["outs"]
        return str(out["path"]), str(out["md5"])
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"data.dvc: not what DVC writes ({error!r})") from None


@dataclass(frozen=True)
class Cache:
    """DVC's local cache: files named by the MD5 of their bytes, folders as lists of such files."""

    folder: Path

    def path(self, md5: str) -> Path:
        """Where the object of a hash lies, if it is there."""
        return self.folder / md5[:2] / md5[2:]

    def listing(self, md5: str) -> dict[str, str]:
        """Paths in a cached folder, and their hashes."""
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self.path(md5).read_text())}

    def objects(self, path: str, md5: str) -> Iterator[tuple[str, str]]:
        """What an out consists of: each file's path and hash, a folder's list before its files.

        Stops after a folder's list if that is missing or damaged.
        """
        yield path, md5
        if md5.endswith(".dir") and self.state(md5) == "good":
            for name, of_file in self.listing(md5).items():
                yield f"{path}/{name}", of_file

    def state(self, md5: str) -> str:
        """`good`, `missing`, or `damaged` if the bytes are not those of the hash."""
        try:
            with self.path(md5).open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
        except OSError:
            return "missing"
        return "good" if found == md5.removesuffix(".dir") else "damaged"


def open_cache(root: Path) -> Cache:
    """The cache of the DVC project in `root`."""
    with Repo(str(root)) as repo:
        return Cache(Path(repo.cache.local.path))
