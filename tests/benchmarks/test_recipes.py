"""Recipes are compared on the same folds of women; what was trained is kept, and found again."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmarks import recipes, studies, study_changes
from benchmarks.recipes import (
    BASELINE,
    GIVEN_WEIGHTS,
    RECIPES,
    Found,
    build_settings,
    choose_recipes,
    compare,
)
from benchmarks.studies import (
    PictureStudy,
    StudyTrial,
    find_trial,
    read_study,
    study_crops,
    within_folds,
)
from benchmarks.study_changes import CHANGES, SpreadEpoch, Tiled
from mammo.base.errors import UserError
from mammo.base.settings import Params
from mammo.classifier.inputs import Epoch, Pictures
from mammo.classifier.network import build_classifier
from mammo.datasets.cbis_masses import convert_cbis_masses
from tests.support.learnable import tiny_params, write_outputs
from tests.support.learning import tiny

FOLDS = 3


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny_params(epochs=1, select_by="loss", trainable_layers=0)


@pytest.fixture(scope="module")
def study(params: Params, tmp_path_factory: pytest.TempPathFactory) -> PictureStudy:
    folder = tmp_path_factory.mktemp("set")
    write_outputs(folder, women=6)
    return read_study("tiny", params, folder, FOLDS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(study: PictureStudy, params: Params, kept: Path) -> dict[str, Found]:
    names = [BASELINE, "mean-of-views", "noisy-or"]
    return recipes.run(study, params, names, None, kept, seeds=1)


def test_each_woman_is_in_the_test_of_one_fold_and_in_one_split_of_each(
    study: PictureStudy,
) -> None:
    tested = pd.concat([study.table[np.array(fold) == "test"] for fold in study.folds])
    assert sorted(tested["image_id"]) == sorted(study.table["image_id"])
    for fold in study.folds:
        splits = study.table.assign(split=fold).groupby("patient_id")["split"].nunique()
        assert (splits == 1).all()
        counted = study.table.assign(split=fold).drop_duplicates("patient_id")["split"]
        assert counted.value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


def test_women_with_a_positive_are_shared_out_evenly() -> None:
    women = [f"{number:03d}" for number in range(20)]
    table = pd.DataFrame({"patient_id": women, "target": [1] * 6 + [0] * 14})
    dealt = studies.deal_women(table, 3)
    assert [sum(dealt[w] == fold for w in women[:6]) for fold in range(3)] == [2, 2, 2]
    assert max(sum(dealt[w] == fold for w in women) for fold in range(3)) == 7


def test_the_table_has_a_line_for_each_recipe_and_its_difference(found: dict[str, Found]) -> None:
    head, *lines = compare(found, {}).splitlines()
    assert [line.split()[0] for line in lines] == list(found)
    assert "difference" in head
    assert lines[0].count("(") == 1
    assert all(line.count("(") == 2 for line in lines[1:])


def test_another_way_to_join_views_takes_the_same_trainings(
    found: dict[str, Found], study: PictureStudy, kept: Path
) -> None:
    assert found["mean-of-views"].seconds == found[BASELINE].seconds
    assert len(list((kept / "trials").iterdir())) == 2 * FOLDS
    highest, mean = (found[name].breasts[0]["probability"] for name in (BASELINE, "mean-of-views"))
    assert (highest >= mean).all()
    assert (highest > mean).any()


def test_what_is_kept_is_not_trained_again(
    found: dict[str, Found],
    study: PictureStudy,
    params: Params,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr(recipes, "train_trial", fail)
    again = recipes.run(study, params, list(found), None, kept, seeds=1)
    for name, one in found.items():
        pd.testing.assert_frame_equal(again[name].breasts[0], one.breasts[0])


def test_a_seed_counts_when_all_its_folds_are_there(
    found: dict[str, Found], study: PictureStudy, params: Params, kept: Path
) -> None:
    assert list(
        recipes.run(study, params, [BASELINE], None, kept, 2, train=False)[BASELINE].breasts
    ) == [0]
    others = recipes.run(study, params, [BASELINE, "head", "all-layers"], None, kept, 1, False)
    assert set(others) == {BASELINE, "head"}  # the same settings as the base's
    assert "all-layers" not in compare(others, {})


def test_a_recipe_without_its_first_weights_is_left_out_and_told(
    found: dict[str, Found],
    study: PictureStudy,
    params: Params,
    kept: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names, missing = [BASELINE, GIVEN_WEIGHTS], tmp_path / "backbone.safetensors"
    assert list(recipes.run(study, params, names, missing, kept, 1, train=False)) == [BASELINE]
    assert "patches is left out: classifier.weights" in capsys.readouterr().out


def test_a_training_is_another_one_with_other_settings_seed_fold_pictures_or_first_weights(
    study: PictureStudy, params: Params, tmp_path: Path
) -> None:
    weights = tmp_path / "backbone.safetensors"
    weights.write_bytes(b"one")
    settings = params.classifier
    with_file = settings.model_copy(update={"weights": str(weights)})
    other = PictureStudy("other", study.table, study.folds, "other pictures")
    trial = StudyTrial(settings, 0)
    folders = [
        find_trial(study, 0, trial, tmp_path),
        find_trial(study, 1, trial, tmp_path),
        find_trial(other, 0, trial, tmp_path),
        find_trial(study, 0, StudyTrial(settings, 1), tmp_path),
        find_trial(study, 0, StudyTrial(settings, 0, "spread"), tmp_path),
        find_trial(study, 0, StudyTrial(with_file, 0), tmp_path),
    ]
    weights.write_bytes(b"two")
    folders.append(find_trial(study, 0, StudyTrial(with_file, 0), tmp_path))
    assert len(set(folders)) == len(folders)
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    with_file = settings.model_copy(update={"weights": str(moved)})
    assert find_trial(study, 0, StudyTrial(with_file, 0), tmp_path) == folders[-1]


def test_the_auroc_within_folds_is_scikit_learns_in_one_fold_and_weighs_pairs_in_two() -> None:
    rng = np.random.default_rng(1)
    target, weights = rng.integers(0, 2, 40), rng.integers(0, 3, (2, 40)).astype(float)
    probability = rng.random(40).round(1)
    one = within_folds(target, probability, np.zeros(40, np.int64), weights)
    expected = [roc_auc_score(target, probability, sample_weight=row) for row in weights]
    assert one == pytest.approx(expected)
    fold = np.repeat([0, 1], 20)
    both = within_folds(target, probability, fold, weights)
    pairs = np.array(
        [
            [
                (row[fold == f] @ target[fold == f]) * (row[fold == f] @ (1 - target[fold == f]))
                for f in (0, 1)
            ]
            for row in weights
        ]
    )
    parts = np.array(
        [
            [
                roc_auc_score(
                    target[fold == f], probability[fold == f], sample_weight=row[fold == f]
                )
                for f in (0, 1)
            ]
            for row in weights
        ]
    )
    assert both == pytest.approx((parts * pairs).sum(axis=1) / pairs.sum(axis=1))
    # A network whose scale is another is no worse for it.
    assert within_folds(target, probability + 5 * fold, fold, weights) == pytest.approx(both)


def test_a_difference_is_paired() -> None:
    """Two recipes that agree on which women are hard differ by little, and surely."""
    rng = np.random.default_rng(4)
    women = [f"{number:03d}" for number in range(120)]
    target = rng.integers(0, 2, 120)
    hard = rng.normal(size=120) + target
    breasts = [
        pd.DataFrame(
            {
                "patient_id": women,
                "laterality": "L",
                "target": target,
                "probability": hard + shift * target,
                "fold": 0,
            }
        )
        for shift in (0.0, 0.2)
    ]
    found = {BASELINE: Found({0: breasts[0]}, 1.0), "better": Found({0: breasts[1]}, 1.0)}
    line = compare(found, {}).splitlines()[-1]
    own, difference = (part.split(")")[0].split(" to ") for part in line.split("(")[1:])
    assert float(difference[0]) > 0
    assert float(own[1]) - float(own[0]) > 2 * (float(difference[1]) - float(difference[0]))
    same = compare({**found, "same": found[BASELINE]}, {}).splitlines()[-1]
    assert "+0.000 (+0.000 to +0.000)" in same


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if name not in ("origin", "lite1", "lite2")]
)
def test_every_recipe_has_settings_that_can_be_built(
    study: PictureStudy, params: Params, name: str, tmp_path: Path
) -> None:
    weights = tmp_path / "backbone.safetensors"
    weights.write_bytes(b"")
    settings = build_settings(replace(study, films=tmp_path), params, RECIPES[name], weights)
    uses_file = RECIPES[name].classifier.get("weights") == GIVEN_WEIGHTS
    assert (settings.weights == str(weights)) is uses_file
    assert settings.target == params.classifier.target


def test_sizes_stay_multiples_of_32_and_epochs_whole(study: PictureStudy, params: Params) -> None:
    larger = build_settings(study, params, RECIPES["larger"], None)
    assert (larger.image_height, larger.image_width) == (64, 64)  # of 48 x 32


def test_a_name_that_is_none_and_a_file_that_is_missing_are_told() -> None:
    with pytest.raises(UserError, match="'lite9' is no recipe; there are base, random"):
        choose_recipes(["lite9"], None)
    with pytest.raises(UserError, match="patches needs --patches"):
        choose_recipes([GIVEN_WEIGHTS], None)
    assert choose_recipes(["head"], None) == [BASELINE, "head"]
    assert GIVEN_WEIGHTS not in choose_recipes(None, None)
    assert GIVEN_WEIGHTS in choose_recipes(None, Path("backbone.safetensors"))


def test_crops_are_divided_by_woman_and_those_of_validation_are_the_test(tmp_path: Path) -> None:
    for woman in range(40):
        part = "val" if woman < 8 else "train"
        for benign, kind in enumerate(("malignant", "benign")):
            name = f"patientcbis-ddsm__P_{woman:05d}_image1_mass{benign}_is_benign_{benign}.png"
            path = tmp_path / "source" / part / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((8, 8), woman, np.uint8))
    convert_cbis_masses(tmp_path / "source", tmp_path / "crops")
    study = study_crops(tmp_path / "crops")
    (fold,) = study.folds
    table = study.table.assign(split=fold)
    assert len(table) == 80
    assert table["target"].sum() == 40
    assert all(Path(path).is_file() for path in table["path"])
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(table.loc[table["split"] == "test", "patient_id"]) == {
        f"P_{woman:05d}" for woman in range(8)
    }
    assert {"train", "validation"} <= set(fold)
    with pytest.raises(UserError, match=r"crops\.csv: there is no such file"):
        study_crops(tmp_path / "source")


def test_noisy_or_is_one_minus_the_product_over_the_tiles() -> None:
    torch.manual_seed(0)
    settings = tiny(weights="none", image_height=96, image_width=64)
    plain = build_classifier(settings).eval()
    tiled = study_changes.build_tiled(settings).eval()
    tiled.load_state_dict(plain.state_dict())
    picture = torch.randn(2, 3, 96, 64)
    assert isinstance(tiled, Tiled)
    with torch.inference_mode():
        cells = plain.backbone[:-2](picture)  # type: ignore[index]
        assert cells.shape[2:] == Tiled.TILES
        logits = plain.head(cells.flatten(2).transpose(1, 2)).squeeze(2)
        expected = 1 - (1 - logits.sigmoid()).prod(dim=1)
        torch.testing.assert_close(tiled(picture).sigmoid(), expected)


def test_a_spread_epoch_has_the_same_pictures_and_positives_in_each_batch() -> None:
    settings = tiny(balance="none")
    targets = np.array([1] * 4 + [0] * 28)
    pictures = Pictures(list(np.zeros((32, 8, 8), np.uint8)), settings)
    plain, spread = (kind(pictures, targets, settings, 3, 1) for kind in (Epoch, SpreadEpoch))
    assert sorted(spread.order) == sorted(plain.order)
    assert [targets[spread.order[at : at + 8]].sum() for at in range(0, 32, 8)] == [1, 1, 1, 1]
    another = SpreadEpoch(pictures, targets, settings, 3, 2)
    assert list(another.order) != list(spread.order)


def test_the_focal_loss_counts_less_what_is_right_already() -> None:
    logits, targets = torch.tensor([3.0, -1.0, -1.0]), torch.tensor([1.0, 1.0, 0.0])
    right = torch.where(targets == 1, torch.sigmoid(logits), torch.sigmoid(-logits))
    expected = -((1 - right) ** 2) * right.log() * torch.tensor([3.0, 3.0, 1.0])
    loss = study_changes.FocalLoss(pos_weight=torch.tensor(3.0))
    assert loss(logits, targets).item() == pytest.approx(expected.mean().item())
    with CHANGES["focal"](tiny()):
        assert isinstance(torch.nn.BCEWithLogitsLoss(), study_changes.FocalLoss)
    assert not isinstance(torch.nn.BCEWithLogitsLoss(), study_changes.FocalLoss)
