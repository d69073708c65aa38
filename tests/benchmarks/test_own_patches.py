"""A fold's own first weights: from the lesions of its train women, and nobody else's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import own_patches, recipes
from benchmarks.own_patches import pretrain_fold
from benchmarks.recipes import BASELINE, OWN_WEIGHTS
from benchmarks.studies import COLUMNS, PictureStudy, StudyTrial, find_trial
from mammo.base.errors import UserError
from mammo.base.settings import Params
from mammo.patches.settings import Pretraining
from tests.support.crops import tiny_pretraining, write_crops
from tests.support.learnable import tiny_params

FOLDS = [  # by the woman's number modulo 4; her crops' own split is train, train, validation, test
    ["train", "validation", "train", "test"],
    ["test", "train", "train", "validation"],
    ["validation", "test", "train", "train"],
]


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny_params(epochs=1, select_by="loss", trainable_layers=0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PictureStudy:
    """Eight women, each with a positive and a negative picture, which are the patches as well."""
    films = write_crops(tmp_path_factory.mktemp("films"))
    table = pd.read_csv(films / "crops.csv", dtype={"patient_id": str})
    names = zip(table["patient_id"], table["image_id"], strict=True)
    table["path"] = [str(films / f"images/{woman}/{name}.png") for woman, name in names]
    table = table.assign(laterality=table["image_id"], target=table["cancer"])[COLUMNS]
    of = [int(woman[1:]) % 4 for woman in table["patient_id"]]
    folds = [[fold[number] for number in of] for fold in FOLDS]
    return PictureStudy("tiny", table, folds, "content", films, films)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_settings(_params: Params) -> Pretraining:
        return tiny_pretraining(epochs=1)

    monkeypatch.setattr(own_patches, "read_settings", read_settings)


def seen(weights: Path | None) -> set[str]:
    assert weights is not None
    return set(pd.read_csv(weights.parent / "patches.csv")["patient_id"])


def test_a_fold_learns_from_its_train_women_alone(
    study: PictureStudy, params: Params, tmp_path: Path
) -> None:
    for fold, splits in enumerate(study.folds[:2]):  # the third cannot
        train = set(study.table.loc[np.array(splits) == "train", "patient_id"])
        assert seen(pretrain_fold(study, fold, 0, params, tmp_path, train=True)) == train


def test_it_is_made_once_and_another_seed_is_another_one(
    study: PictureStudy, params: Params, tmp_path: Path
) -> None:
    assert pretrain_fold(study, 0, 0, params, tmp_path, train=False) is None
    first = pretrain_fold(study, 0, 0, params, tmp_path, train=True)
    other = pretrain_fold(study, 0, 1, params, tmp_path, train=True)
    assert first is not None
    assert other is not None
    assert first.read_bytes() != other.read_bytes()
    written = first.stat().st_mtime_ns
    assert pretrain_fold(study, 0, 0, params, tmp_path, train=False) == first
    assert pretrain_fold(study, 0, 0, params, tmp_path, train=True) == first
    assert first.stat().st_mtime_ns == written


def test_the_recipe_starts_each_fold_from_its_own_backbone(
    study: PictureStudy, params: Params, tmp_path: Path
) -> None:
    names, study = [BASELINE, OWN_WEIGHTS], replace(study, folds=study.folds[:2])
    found = recipes.run(study, params, names, None, tmp_path, seeds=1)
    assert list(found) == names
    for fold in range(len(study.folds)):
        weights = pretrain_fold(study, fold, 0, params, tmp_path, train=False)
        settings = params.classifier.model_copy(update={"weights": str(weights)})
        assert (find_trial(study, fold, StudyTrial(settings, 0), tmp_path) / "facts.json").is_file()
    again = recipes.run(study, params, names, None, tmp_path, seeds=1, train=False)
    pd.testing.assert_frame_equal(again[OWN_WEIGHTS].breasts[0], found[OWN_WEIGHTS].breasts[0])


def test_train_women_without_enough_lesions_are_a_sentence(
    study: PictureStudy, params: Params, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="train needs patches with and without cancer"):
        pretrain_fold(study, 2, 0, params, tmp_path, train=True)


def test_crops_have_no_films_to_cut(study: PictureStudy, params: Params) -> None:
    crops = PictureStudy("crops", study.table, study.folds, "content")
    with pytest.raises(UserError, match="no films with marked lesions"):
        recipes.build_settings(crops, params, recipes.RECIPES[OWN_WEIGHTS], None)
