"""The pipeline before the pipeline: pretraining/dvc.yaml, and what its dvc.lock records.

It makes weights to start from, when a person runs it; a retrain only takes them, and asks whether
they are what the folder's code, settings and data would give. Where no weights are pretrained,
each function of this module says so. All its files belong to the commit, and so to the snapshot.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from flows.pipeline.graph import is_only_missing, read_status_of
from flows.pipeline.lock_and_cache import LockedStage, collect_outs, parse_lock, read_out
from flows.processes.words import shorten_list
from mammo.base.errors import UserError
from mammo.base.settings import WEIGHTS

FOLDER = "pretraining"
PIPELINE = f"{FOLDER}/dvc.yaml"
SETTINGS = f"{FOLDER}/params.yaml"
LOCK = f"{FOLDER}/dvc.lock"


def is_card(path: str) -> bool:
    """Whether an out of a pretraining is the card of weights, which git keeps."""
    return path.startswith(f"{WEIGHTS}/") and path.endswith(".json")


def is_active(root: Path) -> bool:
    """Whether weights are pretrained: whether pretraining/params.yaml names what is made."""
    return bool(read_settings(root).get("made"))


def read_settings(root: Path) -> dict[str, Any]:
    """pretraining/params.yaml, not validated: its stages do that; nothing if there is none.

    Raises:
        UserError: if it is no YAML of settings.
    """
    return _parse_settings(_read_text(root / SETTINGS))


def _read_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _parse_settings(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{SETTINGS}: cannot be read as YAML: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{SETTINGS}: is not a list of settings by name")
    return found


def read_pretraining(root: Path) -> list[LockedStage]:
    """The stages of a pretraining as its dvc.lock has them, each by its address for DVC.

    There are none if no weights are pretrained, or if none have been made yet.

    Raises:
        UserError: if the lock is not what DVC writes.
    """
    lock = _read_text(root / LOCK)
    if not lock or not _parse_settings(_read_text(root / SETTINGS)).get("made"):
        return []
    stages = parse_lock(lock, LOCK, SETTINGS)
    return [replace(stage, name=f"{PIPELINE}:{stage.name}") for stage in stages]


def select_weights(stages: Iterable[LockedStage]) -> dict[str, str]:
    """Path and DVC's hash of each file of weights/ that stages made, without the cards."""
    return {
        path: md5
        for path, md5 in collect_outs(stages).items()
        if path.startswith(f"{WEIGHTS}/") and not is_card(path)
    }


def read_pretraining_data(root: Path) -> dict[str, str]:
    """Path and DVC's hash of the folder that patches are taken from, if a .dvc file names it.

    Raises:
        UserError: if settings or .dvc file are not what they must be.
    """
    found = _parse_settings(_read_text(root / SETTINGS))
    patches = found.get("patches")
    source = patches.get("source") if isinstance(patches, dict) else None
    if not found.get("made") or not isinstance(source, str):
        return {}
    file = root / f"{source}.dvc"
    if not file.is_file():
        return {}
    _, md5 = read_out(file.read_text(errors="replace"), f"{source}.dvc")
    return {source: md5}


def read_pretraining_objects(root: Path) -> dict[str, str]:
    """Path and DVC's hash of the data and of each out of a pretraining that DVC keeps.

    Without the cards, which git has.

    Raises:
        UserError: as `read_pretraining` and `read_pretraining_data`.
    """
    outs = collect_outs(read_pretraining(root))
    kept = {path: md5 for path, md5 in outs.items() if not is_card(path)}
    return {**read_pretraining_data(root), **kept}


def require_pretrained(root: Path) -> None:
    """Make sure that what is pretrained is what this folder would make, as far as it can be seen.

    Its data need not be in the folder: what is only missing does not count.

    Raises:
        UserError: saying what has changed since, and what to run.
    """
    if not is_active(root):
        return
    advice = f"run `dvc repro {PIPELINE}` and commit {LOCK} and the card in weights/"
    stages, data = read_pretraining(root), read_pretraining_data(root)
    if not stages:
        raise UserError(f"{SETTINGS} names what is to be made, and nothing is yet: {advice}")
    if not data:
        raise UserError(
            f"patches.source of {SETTINGS} is not versioned: `dvc add` the folder, then {advice}"
        )
    for source, md5 in data.items():  # DVC would compare with the folder, which may be missing
        if any(stage.deps.get(source, md5) != md5 for stage in stages):
            raise UserError(f"{WEIGHTS}/ was pretrained before {source}.dvc changed: {advice}")
    found = read_status_of(root, PIPELINE)
    if not is_only_missing(found):
        changes = [change for of_stage in found.values() for change in of_stage]
        named = {
            path
            for change in changes
            if isinstance(change, dict)
            for states in change.values()
            for path, state in states.items()
            if state != "deleted"
        }
        what = shorten_list(sorted(named)) or "their command"
        raise UserError(f"{WEIGHTS}/ was pretrained before {what} changed: {advice}")
