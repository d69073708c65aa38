"""What the gate compares: the models' predictions for the challenger's test women.

The women are those of train.csv, with every image, read or not (`women`). The challenger's
predictions are outs of its snapshot, taken from DVC's cache by their hash, whatever lies in the
working tree. The champion, and the plan's reference, are scored again, on the DICOM files of the
challenger's data: each by its registered predictor and the code of its own commit, once the
registered model was found to hold just these. That runs in a process of its own, which gets nothing
of ours: no password, no token.
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
from sklearn.metrics import roc_auc_score

from flows.audit.integrity import compare_with_commit, read_model
from flows.pipeline.known_outs import PREDICTIONS_OUT, SPLIT_OUT
from flows.pipeline.lock_and_cache import (
    Cache,
    collect_outs,
    open_cache,
    read_data_out,
    read_lock,
    require_form,
)
from flows.processes.follow import follow, make_bare_environment
from flows.processes.words import Say
from flows.promotion.networks import predict_alike
from flows.promotion.women import fetch_outs, read_test_images
from flows.publishing.publish import fetch_tag
from flows.snapshots.earlier_layout import find_module
from flows.snapshots.snapshot import Snapshot, materialise, read_tag
from flows.tracking.names import name_tag
from flows.tracking.registry import read_snapshot
from mammo.assurance.paired import round_probabilities
from mammo.assurance.promotion_rule import add_groups, count_unread
from mammo.base.atomic_files import write_csv
from mammo.base.errors import UserError
from mammo.data import reading, tables
from mammo.data.splits import BREAST
from mammo.evaluation.metrics import group_by_breast

Count = Literal["lowest", "leave_out"]


@dataclass(frozen=True)
class ComparedModels:
    """Two models on the same women."""

    # patient_id, laterality, target, the groups, champion, challenger: a row a test breast
    breasts: pd.DataFrame
    images: int  # of the test women, read or not
    positives: int  # of these images, those of positive breasts
    unread_by_champion: int
    unread_by_challenger: int
    unread_positives: tuple[int, int]  # of positive breasts: by the champion, by the challenger
    alone: float | None  # the champion's auROC where only what it cannot read itself counts so
    same: bool  # both are the same predictor, so the champion was not scored again


@dataclass(frozen=True)
class OwnPredictions:
    """A model on its own test women."""

    breasts: pd.DataFrame  # patient_id, laterality, target, probability
    images: int
    unread: int


def compare(
    root: Path,
    champion: ModelVersion,
    challenger: ModelVersion,
    groups: Sequence[str],
    count: Count,
    say: Say,
) -> ComparedModels:
    """The test breasts with both models' probabilities.

    Args:
        root: the project.
        champion: or the plan's reference.
        challenger: whose test women they are.
        groups: of women, columns of train.csv.
        count: what an image counts that one of both cannot read.
        say: gets a line for each step that takes long.

    Raises:
        UserError: if they cannot be compared; the sentence says why.
        CommandError: if the champion fails.
    """
    cache = open_cache(root)
    then, now = require_snapshot(root, champion), require_snapshot(root, challenger)
    _bring(root, then, cache, [SPLIT_OUT], say)
    images = _read_scores(root, now, cache, say)
    split = reading.read_table(_locate_out(cache, then, SPLIT_OUT), tables.SPLIT)
    _check_unseen(images, split, champion, challenger)
    mine = images["probability"]
    if same := predict_alike(then, now):
        say(f"gate: version {challenger.version} has the networks of version {champion.version}")
        scores = mine
    else:
        files = _list_dicom_files(root, now, cache, images, say)
        say(
            f"gate: scoring version {champion.version} on {len(images)} images of the "
            f"{images['patient_id'].nunique()} test women of version {challenger.version}"
        )
        scores = _score_by(root, champion, then, files, say)
    counted = dict(zip(("champion", "challenger"), count_unread(scores, mine, count), strict=True))
    columns = [_group_read(images.assign(probability=x), now) for x in counted.values()]
    breasts = columns[0].rename(columns={"probability": "champion"})
    breasts["challenger"] = columns[1]["probability"]
    positive = images.groupby(BREAST)["target"].transform("max") == 1
    return ComparedModels(
        add_groups(breasts, images, groups),
        len(images),
        int(positive.sum()),
        int(scores.isna().sum()),
        int(mine.isna().sum()),
        (int((scores.isna() & positive).sum()), int((mine.isna() & positive).sum())),
        _measure_alone(images.assign(probability=count_unread(scores, scores, count)[0]), then),
        same,
    )


def _measure_alone(images: pd.DataFrame, snapshot: Snapshot) -> float | None:
    """A model's auROC on its own; None if all its breasts are of one class."""
    breasts = _group_read(images, snapshot)
    if breasts["target"].nunique() != 2:
        return None
    probability = round_probabilities(breasts["probability"])
    return float(roc_auc_score(breasts["target"], probability))


def read_own_predictions(
    root: Path, version: ModelVersion, count: Count, say: Say
) -> OwnPredictions:
    """The test breasts with a version's own probabilities.

    Raises:
        UserError: if they cannot be had; the sentence says why.
    """
    cache, now = open_cache(root), require_snapshot(root, version)
    images = _read_scores(root, now, cache, say)
    mine = images["probability"]
    counted, _ = count_unread(mine, mine, count)
    breasts = _group_read(images.assign(probability=counted), now)
    return OwnPredictions(breasts, len(images), int(mine.isna().sum()))


def _read_scores(root: Path, snapshot: Snapshot, cache: Cache, say: Say) -> pd.DataFrame:
    """Every image of the test women, with the snapshot's own probability; NaN where it has none.

    Raises:
        UserError: if a table is neither in DVC's cache nor in the remote, or the two do not fit.
    """
    _bring(root, snapshot, cache, [PREDICTIONS_OUT], say)
    images = read_test_images(root, snapshot, cache, say)
    found = reading.read_table(_locate_out(cache, snapshot, PREDICTIONS_OUT), tables.PREDICTIONS)
    found = found[found["split"] == "test"]
    strange = sorted(set(found["image_id"]) - set(images["image_id"]))
    if strange:
        raise UserError(
            f"{PREDICTIONS_OUT} of commit {snapshot.commit[:12]} has {len(strange)} test images "
            f"that the data do not have as such"
        )
    return images.merge(
        found[["image_id", "probability"]], on="image_id", how="left", validate="one_to_one"
    )


def _group_read(images: pd.DataFrame, snapshot: Snapshot) -> pd.DataFrame:
    """One row a breast that has an image with a value."""
    read = images[images["probability"].notna()].assign(split="test")
    return group_by_breast(read, _aggregate(snapshot)).drop(columns="split")


def _aggregate(snapshot: Snapshot) -> Literal["max", "mean"]:
    found: Literal["max", "mean"] = yaml.safe_load(snapshot.files["params.yaml"])["evaluate"][
        "aggregate"
    ]
    return found


def require_snapshot(root: Path, version: ModelVersion) -> Snapshot:
    """The snapshot of a version, if registry, run and git agree on it, as an audit demands.

    Raises:
        UserError: if they do not, or one of them cannot be read.
    """
    number = version.version
    try:
        found = read_snapshot(version)
    except UserError as error:
        raise UserError(
            f"the snapshot of version {number} cannot be read from MLflow: {error}"
        ) from None
    if gone := fetch_tag(root, int(number)):
        raise UserError(gone)
    if found.digest != version.tags.get("snapshot_digest") or found != read_tag(
        root, name_tag(int(number))
    ):
        raise UserError(
            f"the snapshot of version {number} is not the one that it was registered with: "
            f"`mammoflow audit {number} --quick` says more"
        )
    require_form(root, found)
    return found


def _read_hashes(snapshot: Snapshot) -> dict[str, str]:
    return collect_outs(read_lock(snapshot))


def _locate_out(cache: Cache, snapshot: Snapshot, path: str) -> Path:
    return cache.path(_read_hashes(snapshot)[path])


def _bring(root: Path, snapshot: Snapshot, cache: Cache, paths: Sequence[str], say: Say) -> None:
    """Make sure that the cache holds outs of a snapshot, with their bytes; ask the remote if not.

    Raises:
        UserError: if an out is neither in the cache nor in the remote, or is damaged.
    """
    hashes = _read_hashes(snapshot)
    unknown = [path for path in paths if path not in hashes]
    if unknown:
        raise UserError(
            f"dvc.lock of commit {snapshot.commit[:12]} names no {', '.join(unknown)}: the two "
            f"versions come from pipelines that cannot be compared"
        )
    absent = [path for path in paths if cache.state(hashes[path]) == "missing"]
    if absent:
        fetch_outs(root, snapshot, absent, say)
    for path in paths:
        state = cache.state(hashes[path])
        if state != "good":
            raise UserError(
                f"{path} of commit {snapshot.commit[:12]} is {state} in DVC's cache: run this where"
                f" the cache is whole, or set a remote that has it"
            )


def _check_unseen(
    images: pd.DataFrame, split: pd.DataFrame, champion: ModelVersion, challenger: ModelVersion
) -> None:
    """No test woman of the challenger was in the champion's training or validation set."""
    women = set(images["patient_id"])
    seen = sorted(women & set(split.loc[split["split"] != "test", "patient_id"]))
    if seen:
        raise UserError(
            f"version {champion.version} was trained or tuned on {len(seen)} of the {len(women)} "
            f"test women of version {challenger.version}, so its scores "
            f"there would flatter it: the salt or the shares under `split` in params.yaml were "
            f"changed; decide "
            f'yourself with `mammoflow promote {challenger.version} --reason "..."`'
        )


def _list_dicom_files(
    root: Path, snapshot: Snapshot, cache: Cache, images: pd.DataFrame, say: Say
) -> list[Path]:
    """The cached DICOM file of each image, in order; the remote is asked for what is missing.

    Raises:
        UserError: if one is neither in the cache nor in the remote.
    """
    name, md5 = read_data_out(snapshot)
    wanted = tables.image_files(images)
    files = _list_cached(cache, md5, wanted)
    if files is None:
        fetch_outs(root, snapshot, [f"{name}.dvc"], say)
        files = _list_cached(cache, md5, wanted)
    if files is None:
        raise UserError(
            f"DVC's cache lacks DICOM files of the test women in {name}/ (hash {md5}): run this "
            f"where the cache is whole, or set a remote that has them"
        )
    return files


def _list_cached(cache: Cache, md5: str, wanted: Sequence[str]) -> list[Path] | None:
    """The cached files of a folder, or None if one of them, or the folder's list, is missing."""
    if cache.state(md5) != "good":
        return None
    listing = cache.listing(md5)
    files = [cache.path(listing[path]) for path in wanted if path in listing]
    return files if len(files) == len(wanted) and all(file.exists() for file in files) else None


def _score_by(
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
            env=make_bare_environment(home, folder),
        )
        return pd.read_csv(scored)["probability"].astype(float)
