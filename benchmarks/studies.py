"""What measurements on several data sets share: pictures made once, folds by woman, kept trainings.

A study's folder is made once for a data set: prepared images, the detector and the crops, by the
stages themselves. A training is kept under a hash of all that it follows from, so that a run that
was stopped goes on, and two measurements may share it. Films stay where KEEP is.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import study_changes
from benchmarks.study_changes import CHANGES
from mammo.base.atomic_files import fresh_folder, read_json, write_csv, write_json
from mammo.base.determinism import pin, derive_seed
from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.base.progress import say
from mammo.base.settings import Classifier as Settings
from mammo.base.settings import Params
from mammo.classifier.network import save_classifier
from mammo.classifier.predict import predict
from mammo.classifier_training import fit as training
from mammo.classifier_training.examples import gather
from mammo.data.splits import hash_to_unit_interval, target_of
from mammo.data.reading import read_table
from mammo.data.tables import MANIFEST, ROIS
from mammo.kept.code_version import code_version, key_of
from mammo.kept.result_store import open_store
from mammo.patches.tables import crop_file, read_crops

LIBRARIES = ("torch", "numpy", "opencv-python-headless", "efficientnet-lite-pytorch")
SALT = "folds"  # of the hash that deals women to folds
VALIDATION = 0.15  # of the women whose crops train
COLUMNS = ["patient_id", "laterality", "image_id", "target", "path"]


@dataclass(frozen=True, eq=False)
class PictureStudy:
    """Pictures with labels, and how often they are divided.

    Attributes:
        name: for people.
        table: COLUMNS, one row a picture; paths are whole.
        folds: of each division, the split (train, validation, test) of each row.
        content: a hash of the pictures.
        folder: of what the stages made; None for crops.
        films: the data set in our layout; None for crops.
    """

    name: str
    table: pd.DataFrame
    folds: list[list[str]]
    content: str
    folder: Path | None = None
    films: Path | None = None


@dataclass(frozen=True)
class StudyTrial:
    """One training: its settings, and what no setting says."""

    settings: Settings
    seed: int
    change: str = ""  # of CHANGES


def prepare(params: Params, data: Path, keep: Path) -> Path:
    """Make the images, the detector and the crops of a data set, unless they are there; the folder.

    The detector knows boxes of breasts only, no label, so it may have seen a fold's test women.
    """
    from stages import crop_rois, preprocess, split, train_detector  # they import the detector

    files = sorted(path for path in data.rglob("*") if path.is_file())
    if not files:
        raise UserError(
            f"{data}: there is no data set in this folder, with train.csv and train_images/"
        )
    sizes = [f"{path.relative_to(data)} {path.stat().st_size}" for path in files]
    made_of = params.model_dump_json(
        include={"seed", "threads", "preprocess", "split", "detector", "crop"}
    )
    named = ("preprocess", "train_detector", "crop_rois")
    code = [code_version(f"stages.{name}", LIBRARIES) for name in named]
    train = (data / "train.csv").read_text()
    folder = keep / "sets" / key_of(train, *sizes, made_of, *code)[:16]
    stages: dict[str, Callable[[Path], None]] = {
        "preprocess": lambda out: preprocess.run(params, data, out, count_cores(), open_store()),
        "split": lambda out: split.run(params, folder / "preprocess/manifest.csv", out),
        "train_detector": lambda out: train_detector.run(
            params, folder / "preprocess", folder / "split/split.csv", out
        ),
        "crop_rois": lambda out: crop_rois.run(
            params, folder / "preprocess", folder / "train_detector", out
        ),
    }
    for name, stage in stages.items():
        if not (folder / name).exists():
            say(f"{data.name}: {name}")
            pin(derive_seed(params.seed, name), params.threads)
            with fresh_folder(folder / name) as out:
                stage(out)
    return folder


def read_study(name: str, params: Params, folder: Path, folds: int) -> PictureStudy:
    """The crops of a prepared data set, in as many folds of women.

    Each woman is in the test of one fold. The next fold's women are its validation.
    """
    manifest = read_table(folder / "preprocess/manifest.csv", MANIFEST)
    rois = read_table(folder / "crop_rois/rois.csv", ROIS)[["image_id", "path"]]
    manifest = manifest.assign(target=target_of(manifest, params.evaluate.target))
    table = manifest.drop(columns="path").merge(rois, on="image_id", validate="one_to_one")
    table["path"] = [str((folder / "crop_rois/images" / path).resolve()) for path in table["path"]]
    table = table[COLUMNS].sort_values(["patient_id", "image_id"], ignore_index=True)
    of = table["patient_id"].map(deal_women(table, folds))
    names = {0: "test", 1: "validation"}
    divided = [
        [names.get((of_row - fold) % folds, "train") for of_row in of] for fold in range(folds)
    ]
    return PictureStudy(name, table, divided, hash_pictures(table), folder)


def deal_women(table: pd.DataFrame, folds: int) -> dict[str, int]:
    """Deal the women to folds, those with a positive picture first, in the order of a hash."""
    sick = table.groupby("patient_id")["target"].max()
    order = sorted(sick.index, key=lambda woman: (-sick[woman], hash_to_unit_interval(woman, SALT)))
    return {woman: number % folds for number, woman in enumerate(order)}


def study_crops(folder: Path) -> PictureStudy:
    """Crops by class, as `mammoflow data cbis-masses` writes them: one division.

    The women of its validation, and of its test if there is one, are the test. A share of the
    women of its train is the validation.

    Raises:
        UserError: if its table cannot be read, or has a woman in two splits.
    """
    table = read_crops(folder)
    ids = list(zip(table["patient_id"], table["image_id"], strict=True))
    table = table.assign(
        laterality=table["image_id"],  # each crop is judged by itself
        target=table["cancer"],
        path=[str(folder / crop_file(*of_crop)) for of_crop in ids],
    )
    splits = [
        "test"
        if row["split"] != "train"
        else "validation"
        if hash_to_unit_interval(row["patient_id"], SALT) < VALIDATION
        else "train"
        for row in table.to_dict("records")
    ]
    return PictureStudy(folder.name, table[COLUMNS], [splits], hash_pictures(table))


def hash_pictures(table: pd.DataFrame) -> str:
    """One hash of labels and pictures."""
    digest = hashlib.sha256()
    for row in table.to_dict("records"):
        digest.update(f"{row['patient_id']} {row['image_id']} {row['target']}".encode())
        digest.update(Path(row["path"]).read_bytes())
    return digest.hexdigest()


def find_trial(study: PictureStudy, fold: int, trial: StudyTrial, keep: Path) -> Path:
    """Where a training is kept, or would be: a hash of all that it follows from."""
    weights = Path(trial.settings.weights)
    first = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ""
    # The name of the file does not count, its content does.
    settings = trial.settings.model_copy(update={"weights": first or trial.settings.weights})
    code = code_version("mammo.classifier_training.fit", LIBRARIES)
    own = Path(study_changes.__file__).read_text() if trial.change else ""
    facts = [study.content, *study.folds[fold], settings.model_dump_json()]
    return keep / "trials" / key_of(*facts, str(trial.seed), trial.change, own, code)[:24]


def train_trial(
    study: PictureStudy, fold: int, trial: StudyTrial, threads: int, keep: Path
) -> Path:
    """Train and predict the fold's test pictures, unless that is done; the folder of the result.

    It holds the network, `probabilities.csv` (test pictures) and `facts.json`. A training that was
    stopped goes on after its last epoch.
    """
    folder = find_trial(study, fold, trial, keep)
    if (folder / "facts.json").is_file():
        return folder
    table = study.table.assign(split=study.folds[fold])
    settings, start = trial.settings, time.perf_counter()
    pin(trial.seed, threads)
    with CHANGES[trial.change](settings):
        train, validation = (
            gather(table, part, Path(), settings) for part in ("train", "validation")
        )
        checkpoints = keep / "checkpoints" / folder.name
        fitted = training.fit(settings, train, validation, trial.seed, checkpoints=checkpoints)
    test = table[table["split"] == "test"].drop(columns=["path", "split"])
    paths = [Path(path) for path in table.loc[test.index, "path"]]
    test["probability"] = predict(fitted.model, paths, settings)
    with fresh_folder(folder) as out:
        if not trial.change:
            save_classifier(fitted.model, settings, out)
        write_csv(out / "probabilities.csv", test)
        seconds = time.perf_counter() - start
        facts = {"best_epoch": fitted.best_epoch, "epochs": len(fitted.history)}
        write_json(out / "facts.json", {"seconds": seconds, **facts})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a training that is kept."""
    found: dict[str, Any] = read_json(folder / "facts.json")
    return found


def read_probabilities(folder: Path) -> pd.DataFrame:
    """The test pictures of a training that is kept."""
    text = {"patient_id": str, "laterality": str, "image_id": str}
    return pd.read_csv(folder / "probabilities.csv", dtype=text)


def within_folds(
    target: NDArray[np.int64],
    probability: NDArray[np.float64],
    fold: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The auROC of pairs that one network scored: each fold has a network, whose scale is its own.

    Args:
        target: (N,) of 0 and 1.
        probability: (N,).
        fold: (N,).
        weights: (R, N), not negative.

    Returns:
        (R,): the share of the pairs of a positive and a negative of the same fold that are in the
        right order; ties count half. NaN without a pair.
    """
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for one in np.unique(fold):
        sick, well = (np.flatnonzero((fold == one) & (target == kind)) for kind in (1, 0))
        first, second = probability[sick][:, None], probability[well][None, :]
        wins = (first > second) + 0.5 * (first == second)
        right += ((weights[:, sick] @ wins) * weights[:, well]).sum(axis=1)
        pairs += weights[:, sick].sum(axis=1) * weights[:, well].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / pairs


def read_breasts(folders: Sequence[Path], aggregate: str) -> pd.DataFrame:
    """The test breasts of all folds of one seed, each with its network's probability."""
    parts = []
    for fold, folder in enumerate(folders):
        images = read_probabilities(folder)
        groups = images.groupby(["patient_id", "laterality"], sort=True, as_index=False)
        parts.append(groups.agg(target=("target", "max"), probability=("probability", aggregate)))
        parts[-1]["fold"] = fold
    return pd.concat(parts).sort_values(["patient_id", "laterality"], ignore_index=True)
