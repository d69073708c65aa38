"""The search proposes the same whatever it is interrupted by, and prunes what is not worth it."""

from pathlib import Path

import optuna
import pandas as pd
import pytest

from mammo.errors import UserError
from mammo.params import Space, Tune
from mammo.reproducibility import pin
from mammo.training import Scores, TrainingDivergedError, gather
from mammo.tuning import (
    UNPRUNED,
    Choice,
    Report,
    best_params,
    new_study,
    search,
    trials_table,
    tune,
)
from tests.mammo.learning import tiny, write_breasts

SPACE = Space(head_width=[8, 16, 32], dropout=(0.0, 0.5), learning_rate=(1e-4, 1e-2))


@pytest.fixture(autouse=True, scope="module")
def pinned() -> None:
    pin(0, threads=1)


def quality(choice: Choice) -> float:
    return choice["dropout"] - abs(choice["learning_rate"] - 0.002) + choice["head_width"] / 100


def smooth(number: int, choice: Choice, report: Report) -> float:
    report({"epoch": 1, "validation_auroc": quality(choice) - 1})
    report({"epoch": 2, "validation_auroc": quality(choice)})
    return quality(choice)


def searched(*stops: int, seed: int = 3, pruning: bool = True) -> pd.DataFrame:
    study = new_study("auroc", pruning)
    for trials in stops:
        search(study, smooth, SPACE, "auroc", trials, seed)
    return trials_table(study)


def test_thirty_trials_at_once_are_fifteen_and_fifteen() -> None:
    at_once = searched(30)
    pd.testing.assert_frame_equal(at_once, searched(15, 30))
    assert len(at_once) == 30
    assert at_once["learning_rate"].nunique() == 30
    assert not at_once["dropout"].equals(searched(30, seed=4)["dropout"])


def test_proposals_lie_in_the_space_and_get_better() -> None:
    table = searched(30, pruning=False)
    assert set(table["head_width"]) <= {8, 16, 32}
    assert table["dropout"].between(0, 0.5).all()
    assert table["learning_rate"].between(1e-4, 1e-2).all()
    assert set(table["state"]) == {"complete"}
    # The first ten are random.
    assert table["value"][10:].mean() > table["value"][:10].mean()


def test_trials_below_the_median_are_pruned_and_never_the_best() -> None:
    study = new_study("auroc", True)
    search(study, smooth, SPACE, "auroc", 20, 3)
    table = trials_table(study)
    pruned = table[table["state"] == "pruned"]
    assert 0 < len(pruned) < 20
    assert (pruned["number"] >= UNPRUNED).all()
    assert (pruned["epochs"] == 1).all()
    assert best_params(study)["value"] == table.loc[table["state"] == "complete", "value"].max()


def test_a_loss_is_minimised() -> None:
    study = new_study("loss", False)

    def objective(number: int, choice: Choice, report: Report) -> float:
        return choice["dropout"]

    search(study, objective, SPACE, "loss", 5, 1)
    table = trials_table(study)
    assert best_params(study)["dropout"] == table["dropout"].min()


def test_a_trial_that_diverges_does_not_end_the_search() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        if number != 1:
            raise TrainingDivergedError("too fast")
        return 0.5

    study = new_study("auroc", True)
    search(study, objective, SPACE, "auroc", 3, 1)
    table = trials_table(study)
    assert list(table["state"]) == ["fail", "complete", "fail"]
    assert table["value"].isna().tolist() == [True, False, True]
    assert best_params(study)["value"] == 0.5


def test_no_finished_trial_is_a_clear_error() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        raise TrainingDivergedError("too fast")

    study = new_study("auroc", True)
    search(study, objective, SPACE, "auroc", 2, 1)
    with pytest.raises(UserError, match=r"tune\.space\.learning_rate"):
        best_params(study)


def test_other_errors_do_end_it() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        raise UserError("the image is gone")

    with pytest.raises(UserError, match="gone"):
        search(new_study("auroc", True), objective, SPACE, "auroc", 2, 1)


def test_tuning_trains_and_tells_who_watches(tmp_path: Path) -> None:
    table = write_breasts(tmp_path, women=4)
    classifier = tiny()
    train, validation = (
        gather(table, name, tmp_path, classifier) for name in ("train", "validation")
    )
    settings = Tune(trials=2, epochs=2, pruning=False, space=SPACE)
    heard: list[tuple[int, Choice, Scores]] = []

    def watch(number: int, choice: Choice) -> Report:
        return lambda scores: heard.append((number, choice, scores))

    study = tune(classifier, settings, train, validation, 7, watch)
    assert [(number, scores["epoch"]) for number, _, scores in heard] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    result = trials_table(study)
    assert list(result["epochs"]) == [2, 2]
    for number, choice, _ in heard:
        assert result.loc[number, list(choice)].to_dict() == pytest.approx(choice)
    for number in (0, 1):
        values = [scores["validation_auroc"] for n, _, scores in heard if n == number]
        assert result.loc[number, "value"] == max(values)
    again = tune(classifier, settings, train, validation, 7)
    pd.testing.assert_frame_equal(trials_table(again), result)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
