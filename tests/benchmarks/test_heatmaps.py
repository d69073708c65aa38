"""Heat is held against lesions: what counts as a hit, as energy, and as chance."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from benchmarks import heatmaps
from benchmarks.heatmaps import (
    MEASURED,
    fill_ellipses,
    play,
    read_outputs,
    score,
    show,
    summarise,
    train_folds,
)
from benchmarks.recipes import BASELINE
from benchmarks.studies import read_study
from mammo.base.errors import UserError
from mammo.base.settings import Params
from mammo.imaging.geometry import Box
from tests.support.learnable import tiny_params, write_outputs

WOMEN = 6


@pytest.fixture(scope="module")
def params() -> Params:
    params = tiny_params(epochs=1, select_by="loss", trainable_layers=0)
    return params.model_copy(update={"explain": params.explain.model_copy(update={"tolerance": 1})})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six women; each left breast's views are marked with a mass, or with calcifications."""
    folder = tmp_path_factory.mktemp("set")
    write_outputs(folder, WOMEN)
    rows = []
    for woman in range(WOMEN):
        kind = "mass" if woman % 2 else "calcifications"
        for view in (0, 1):
            box = {"x1": 5, "y1": 10, "x2": 15 + 4 * woman, "y2": 20 + 4 * woman}
            rows.append({"image_id": f"{woman}{view}", **box, "kind": kind})
    rows.append({**rows[0], "image_id": "02"})  # in a healthy breast: no cancer, no game
    pd.DataFrame(rows).to_csv(folder / "preprocess/lesions.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def games(params: Params, outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    study = read_study("tiny", params, outputs, 3)
    keep = tmp_path_factory.mktemp("kept")
    network, parts = next(train_folds(study, params, BASELINE, None, keep, seeds=1))
    assert parts == study.folds[0]
    networks = iter([(network, fold) for fold in study.folds])
    return play(study, params, networks, pictures=outputs / "pictures")


def test_each_marked_cancer_is_explained_by_every_method(games: pd.DataFrame) -> None:
    everything = games[games["kind"] == "all"]
    assert set(everything["image_id"]) == {f"{w}{view}" for w in range(WOMEN) for view in (0, 1)}
    assert all(
        methods == list(MEASURED)
        for methods in everything.groupby("image_id")["method"].apply(list)
    )
    assert set(games.loc[games["patient_id"] == "w1", "kind"]) == {"all", "mass"}
    shares = games[["chance", "energy", "uniform"]].to_numpy()
    assert shares.min() >= 0
    assert shares.max() <= 1


def test_the_tables_are_of_all_of_each_kind_and_of_three_sizes(games: pd.DataFrame) -> None:
    tables = summarise(games).split("\n\n")
    titles = [table.splitlines()[0] for table in tables]
    assert titles[:3] == [
        "all: 12 images of 6 women",
        "calcifications: 6 images of 3 women",
        "mass: 6 images of 3 women",
    ]
    assert [title.split(",")[0] for title in titles[3:]] == ["small", "medium", "large"]
    for table in tables:
        assert [line.split()[0] for line in table.splitlines()[2:]] == list(MEASURED)


def test_a_picture_shows_the_image_under_each_method(outputs: Path, games: pd.DataFrame) -> None:
    written = {path.stem for path in (outputs / "pictures").iterdir()}
    assert written == set(games["image_id"])
    roi = np.full((48, 32), 90, np.uint8)
    heats = {name: np.full(roi.shape, 0.5, np.float32) for name in MEASURED}
    picture = heatmaps.draw(roi, heats, [Box(5, 5, 20, 20)])
    assert picture.shape == (480, 320 * (1 + len(MEASURED)), 3)


def test_without_a_marked_cancer_it_says_so(params: Params, outputs: Path) -> None:
    other = params.explain.model_copy(update={"kinds": ["cyst"]})
    study = read_study("tiny", params, outputs, 3)
    with pytest.raises(UserError, match="no positive image has a lesion"):
        play(study, params.model_copy(update={"explain": other}), iter(()))


def test_the_outputs_of_a_pipeline_keep_their_own_split(params: Params, outputs: Path) -> None:
    mine = read_outputs(params, outputs)
    (own,) = mine.folds
    split = pd.read_csv(outputs / "split/split.csv").set_index("patient_id")["split"]
    assert own == list(mine.table["patient_id"].map(split))


def breast() -> np.ndarray:
    """A half-ellipse at the left edge of a black picture."""
    roi = np.zeros((200, 120), np.uint8)
    cv2.ellipse(roi, (0, 100), (100, 90), 0, 0, 360, 150, -1)
    return roi


def heat_at(x: int, y: int) -> np.ndarray:
    heat = np.zeros((200, 120), np.float32)
    heat[y - 5 : y + 5, x - 5 : x + 5] = 1
    return heat


def test_heat_in_the_lesion_is_a_hit_with_all_its_energy_and_beside_it_neither() -> None:
    lesion = Box(30, 80, 60, 110)
    inside, beside = score(breast(), {"a": heat_at(45, 95), "b": heat_at(45, 140)}, [lesion], 8)
    assert (inside["hit"], inside["energy"]) == (True, 1.0)
    assert (beside["hit"], beside["energy"]) == (False, 0.0)
    assert inside["diameter"] == 30
    # The corner of the box is no part of the lesion, but lies within the tolerance.
    (corner,) = score(breast(), {"a": heat_at(33, 83)}, [lesion], 8)
    assert corner["hit"]
    assert corner["energy"] < 0.5


def test_uniform_heat_over_the_breast_is_what_chance_is() -> None:
    roi = breast()
    heat = (roi > 0).astype(np.float32)
    (one,) = score(roi, {"a": heat}, [Box(30, 80, 60, 110)], 0)
    assert one["energy"] == pytest.approx(one["uniform"], rel=0.05)
    assert one["chance"] == one["uniform"]
    area = np.pi / 4 * 30 * 30 / (np.pi / 2 * 100 * 90)
    assert one["uniform"] == pytest.approx(area, rel=0.1)


def test_no_heat_is_no_hit_and_no_energy() -> None:
    (one,) = score(breast(), {"a": np.zeros((200, 120), np.float32)}, [Box(30, 80, 60, 110)], 8)
    assert (one["hit"], one["energy"]) == (False, 0.0)


def test_an_ellipse_has_its_area_and_grows_on_all_sides() -> None:
    box = Box(20, 30, 60, 110)
    assert fill_ellipses([box], (150, 100), 0).sum() == pytest.approx(np.pi / 4 * 40 * 80, rel=0.02)
    grown = np.argwhere(fill_ellipses([box], (150, 100), 5))
    assert grown.min(axis=0).tolist() == [25, 15]
    assert grown.max(axis=0).tolist() == [114, 64]
    assert not fill_ellipses([], (150, 100), 5).any()


def test_an_interval_resamples_the_women_not_their_images() -> None:
    """Twenty images of each of four women say no more than one image of each would."""
    values, women = pd.Series([0.0, 1.0, 0.0, 1.0]), pd.Series(list("abcd"))
    many = values.repeat(20).reset_index(drop=True)
    named = women.repeat(20).reset_index(drop=True)
    assert show(many, named) == show(values, women) == "+0.500 (+0.000 to +1.000)"
