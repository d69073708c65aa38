"""What the gate compares: both models' predictions for the challenger's test women.

The challenger's are outs of its snapshot, taken from DVC's cache by their hash, whatever lies in
the working tree. The champion is scored again, on the DICOM files of the challenger's data: its
registered predictor, by the code of its own commit, once the registered model was found to hold
just these. That runs in a process of its own, which gets nothing of ours: no password, no token.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from mlflow.entities.model_registry import ModelVersion

from flows.audit.integrity import compare_with_commit, read_model
from flows.pipeline.lock_and_cache import (
    Cache,
    data_out,
    open_cache,
    outs_of,
    read_lock,
    require_form,
)
from flows.processes.follow import bare_environment, follow
from flows.processes.words import Say, shorten_list
from flows.promotion.gate import predict_alike
from flows.publishing.publish import fetch_objects, fetch_tag
from flows.snapshots.earlier_layout import find_module
from flows.snapshots.snapshot import Snapshot, materialise, read_tag
from flows.tracking.register import git_tag
from flows.tracking.registry import snapshot_of
from mammo.assurance.promotion_rule import add_groups
from mammo.base.atomic_files import write_csv
from mammo.base.errors import UserError
from mammo.data import tables
from mammo.evaluation.metrics import group_by_breast

PREDICTIONS_OUT = "outputs/evaluate/predictions.csv"
MANIFEST_OUT = "outputs/preprocess/manifest.csv"
SPLIT_OUT = "outputs/split/split.csv"


@dataclass(frozen=True)
class Compared:
    """What the gate compares."""

    # patient_id, laterality, target, the groups, champion, challenger: a row a test breast
    breasts: pd.DataFrame
    unreadable: int  # images that the champion could not read
    same: bool  # both are the same predictor, so the champion was not scored again


def predictions(
    root: Path,
    champion: ModelVersion,
    challenger: ModelVersion,
    groups: Sequence[str],
    say: Say,
) -> Compared:
    """The test breasts with both models' probabilities.

    Raises:
        UserError: if they cannot be compared; the sentence says why.
        CommandError: if the champion fails.
    """
    cache = open_cache(root)
    then, now = _snapshot(root, champion), _snapshot(root, challenger)
    _bring(root, then, cache, [SPLIT_OUT], say)
    _bring(root, now, cache, [PREDICTIONS_OUT, MANIFEST_OUT], say)
    images = _test_images(cache, now)
    split = tables.read_table(_out(cache, then, SPLIT_OUT), tables.SPLIT)
    _check_unseen(images, split, champion, challenger)
    if same := predict_alike(then, now):
        say(f"gate: version {challenger.version} has the networks of version {champion.version}")
        scores = images["probability"]
    else:
        files = _dicom_files(root, now, cache, images, say)
        say(
            f"gate: scoring the champion, version {champion.version}, on {len(images)} images of "
            f"the {images['patient_id'].nunique()} test women of version {challenger.version}"
        )
        scores = _scored_by(root, champion, then, files, say)
    # A picture that the champion cannot read raises no alarm.
    unreadable = int(scores.isna().sum())
    aggregate = _aggregate(now)
    breasts = group_by_breast(images, aggregate)
    old = group_by_breast(images.assign(probability=scores.fillna(0.0)), aggregate)
    breasts = breasts.rename(columns={"probability": "challenger"}).drop(columns="split")
    breasts["champion"] = old["probability"]
    manifest = tables.read_table(_out(cache, now, MANIFEST_OUT), tables.MANIFEST)
    return Compared(add_groups(breasts, manifest, groups), unreadable, same)


def own_predictions(root: Path, version: ModelVersion, say: Say) -> pd.DataFrame:
    """The test breasts with a version's own probabilities: rows of `tables.BREASTS`.

    Raises:
        UserError: if they cannot be had; the sentence says why.
    """
    cache, now = open_cache(root), _snapshot(root, version)
    _bring(root, now, cache, [PREDICTIONS_OUT], say)
    return group_by_breast(_test_images(cache, now), _aggregate(now))


def _test_images(cache: Cache, snapshot: Snapshot) -> pd.DataFrame:
    images = tables.read_table(_out(cache, snapshot, PREDICTIONS_OUT), tables.PREDICTIONS)
    return images[images["split"] == "test"].reset_index(drop=True)


def _aggregate(snapshot: Snapshot) -> Literal["max", "mean"]:
    found: Literal["max", "mean"] = yaml.safe_load(snapshot.files["params.yaml"])["evaluate"][
        "aggregate"
    ]
    return found


def _snapshot(root: Path, version: ModelVersion) -> Snapshot:
    """The snapshot of a version, if registry, run and git agree on it, as an audit demands.

    Raises:
        UserError: if they do not, or one of them cannot be read.
    """
    number = version.version
    try:
        found = snapshot_of(version)
    except UserError as error:
        raise UserError(
            f"the snapshot of version {number} cannot be read from MLflow: {error}"
        ) from None
    if gone := fetch_tag(root, int(number)):
        raise UserError(gone)
    if found.digest != version.tags.get("snapshot_digest") or found != read_tag(
        root, git_tag(int(number))
    ):
        raise UserError(
            f"the snapshot of version {number} is not the one that it was registered with: "
            f"`mammoflow audit {number} --quick` says more"
        )
    require_form(root, found)
    return found


def _hashes(snapshot: Snapshot) -> dict[str, str]:
    return outs_of(read_lock(snapshot))


def _out(cache: Cache, snapshot: Snapshot, path: str) -> Path:
    return cache.path(_hashes(snapshot)[path])


def _bring(root: Path, snapshot: Snapshot, cache: Cache, paths: Sequence[str], say: Say) -> None:
    """Make sure that the cache holds outs of a snapshot, with their bytes; ask the remote if not.

    Raises:
        UserError: if an out is neither here nor there, or is damaged.
    """
    hashes = _hashes(snapshot)
    unknown = [path for path in paths if path not in hashes]
    if unknown:
        raise UserError(
            f"dvc.lock of commit {snapshot.commit[:12]} names no {', '.join(unknown)}: the two "
            f"versions come from pipelines that cannot be compared"
        )
    absent = [path for path in paths if cache.state(hashes[path]) == "missing"]
    if absent:
        _fetch(root, snapshot, absent, say)
    for path in paths:
        state = cache.state(hashes[path])
        if state != "good":
            raise UserError(
                f"{path} of commit {snapshot.commit[:12]} is {state} in DVC's cache: run this where"
                f" the cache is whole, or set a remote that has it"
            )


def _fetch(root: Path, snapshot: Snapshot, targets: Sequence[str], say: Say) -> None:
    """Get from the remote, if there is one; what stays missing is the caller's to say."""
    with materialise(root, snapshot) as folder:
        fetch_objects(folder, targets, say)


def _check_unseen(
    images: pd.DataFrame, split: pd.DataFrame, champion: ModelVersion, challenger: ModelVersion
) -> None:
    """No test woman of the challenger was in the champion's training or validation set."""
    women = set(images["patient_id"])
    seen = sorted(women & set(split.loc[split["split"] != "test", "patient_id"]))
    if seen:
        raise UserError(
            f"version {champion.version} was trained or tuned on {len(seen)} of the {len(women)} "
            f"test women of version {challenger.version} ({shorten_list(seen)}), so its scores "
            f"there would flatter it: the salt or the shares under `split` in params.yaml were "
            f"changed; decide "
            f'yourself with `mammoflow promote {challenger.version} --reason "..."`'
        )


def _dicom_files(
    root: Path, snapshot: Snapshot, cache: Cache, images: pd.DataFrame, say: Say
) -> list[Path]:
    """The cached DICOM file of each image, in order; the remote is asked for what is missing.

    Raises:
        UserError: if one is neither here nor there.
    """
    name, md5 = data_out(snapshot)
    wanted = tables.image_files(images)
    files = _cached(cache, md5, wanted)
    if files is None:
        _fetch(root, snapshot, [f"{name}.dvc"], say)
        files = _cached(cache, md5, wanted)
    if files is None:
        raise UserError(
            f"DVC's cache lacks DICOM files of the test women in {name}/ (hash {md5}): run this "
            f"where the cache is whole, or set a remote that has them"
        )
    return files


def _cached(cache: Cache, md5: str, wanted: Sequence[str]) -> list[Path] | None:
    """The cached files of a folder, or None if one of them, or the folder's list, is missing."""
    if cache.state(md5) != "good":
        return None
    listing = cache.listing(md5)
    files = [cache.path(listing[path]) for path in wanted if path in listing]
    return files if len(files) == len(wanted) and all(file.exists() for file in files) else None


def _scored_by(
    root: Path, version: ModelVersion, then: Snapshot, files: list[Path], say: Say
) -> "pd.Series[float]":
    """The probability that a registered version gives each file, NaN where it cannot read it.

    No code of the artifact store is run: its own commit's is, which must be the same.

    Raises:
        UserError: if the registered model is not what its commit and its stages made.
        CommandError: if it fails.
    """
    number = version.version
    with tempfile.TemporaryDirectory() as scratch, materialise(root, then) as folder:
        model = read_model(version, Path(scratch))
        strange = next(compare_with_commit(model, folder, then, read_lock(then)), None)
        if strange is not None:
            raise UserError(
                f"version {number} is not what it was registered as, and nothing of it was run: "
                f"{strange.sentence}; `mammoflow audit {number} --quick` says more"
            )
        scores = find_module(folder, "mammo.serving.score_files")
        if scores is None:
            raise UserError(
                f"version {number} was registered before there was a gate, and its code cannot be "
                f'asked for scores: decide yourself with `mammoflow promote N --reason "..."`'
            )
        listed, scored = Path(scratch) / "files.csv", Path(scratch) / "scores.csv"
        write_csv(listed, pd.DataFrame({"path": [str(file) for file in files]}))
        home = Path(scratch) / "home"
        home.mkdir()
        follow(
            [
                sys.executable,
                "-m",
                scores,
                *map(str, (model.predictor, listed, scored)),
            ],
            cwd=folder,  # comes first on the child's path: the version's own mammo
            on_line=say,
            env=bare_environment(home, folder),
        )
        return pd.read_csv(scored)["probability"].astype(float)
