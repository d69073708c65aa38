"""The search proposes the same whatever it is interrupted by, and prunes what is not worth it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Tune
from mammo.classifier_training.examples import gather
from mammo.classifier_training.fit import Scores, TrainingDivergedError
from mammo.tuning.cards import Report, TrialOutcome
from mammo.tuning.search import (
    UNPRUNED_TRIALS,
    Attempt,
    Choice,
    Tuning,
    create_study,
    find_best_params,
    in_turn,
    load_trials,
    save_trials,
    search,
    tabulate_trials,
    tune,
)
from tests.support.choices import SPACE, quality, smooth
from tests.support.learning import tiny, write_breasts


@pytest.fixture(autouse=True, scope="module")
def pinned() -> None:
    pin(0, threads=1)


def searched(*stops: int, seed: int = 3, pruning: bool = True) -> pd.DataFrame:
    study = create_study("auroc", pruning)
    for trials in stops:
        search(study, in_turn(smooth), SPACE, "auroc", trials, seed)
    return tabulate_trials(study)


def test_thirty_trials_at_once_are_fifteen_and_fifteen() -> None:
    at_once = searched(30)
    pd.testing.assert_frame_equal(at_once, searched(15, 30))
    assert len(at_once) == 30
    assert at_once["learning_rate"].nunique() == 30
    assert not at_once["dropout"].equals(searched(30, seed=4)["dropout"])


def test_cut_short_anywhere_the_search_proposes_the_same_and_prunes_the_same(
    tmp_path: Path,
) -> None:
    at_once = searched(20)
    assert set(at_once["state"]) == {"complete", "pruned"}
    for ended in (0, 1, 7, 19, 20):
        path = tmp_path / f"{ended}.json"
        study = create_study("auroc", True)
        search(study, in_turn(smooth), SPACE, "auroc", ended, 3, partial(save_trials, path=path))
        resumed = create_study("auroc", True)
        load_trials(path, resumed)
        assert len(resumed.trials) == ended
        search(resumed, in_turn(smooth), SPACE, "auroc", 20, 3)
        pd.testing.assert_frame_equal(tabulate_trials(resumed), at_once, check_exact=True)
        assert (
            find_best_params(resumed)["value"]
            == at_once.loc[at_once["state"] == "complete", "value"].max()
        )


def in_any_order(wanted: Sequence[Attempt]) -> list[TrialOutcome]:
    """Run a round as several GPUs might: the last trial ends first, and epochs alternate."""
    outcomes: dict[int, TrialOutcome] = {}
    for epoch in (1, 2):
        for number, choice, report in reversed(wanted):
            value = quality(choice) - (epoch == 1)
            try:
                if number not in outcomes:
                    report({"epoch": epoch, "validation_auroc": value})
            except optuna.TrialPruned as error:
                outcomes[number] = TrialOutcome(None, error)
    return [outcomes.get(number, TrialOutcome(quality(choice))) for number, choice, _ in wanted]


def test_a_round_proposes_and_prunes_the_same_whoever_runs_it_and_however_it_is_cut_short(
    tmp_path: Path,
) -> None:
    tables = []
    for run_round, stops in (
        (in_turn(smooth), [20]),
        (in_any_order, [20]),
        (in_any_order, [8, 20]),
    ):
        study, path = create_study("auroc", True), tmp_path / "trials.json"
        keep = partial(save_trials, path=path)
        for trials in stops:
            if trials != stops[0]:
                study = create_study("auroc", True)
                load_trials(path, study)
            search(study, run_round, SPACE, "auroc", trials, 3, keep, at_once=4)
        tables.append(tabulate_trials(study))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    assert set(tables[0]["state"]) == {"complete", "pruned"}
    assert not tables[0].equals(searched(20))


def test_trials_that_diverged_are_kept_too(tmp_path: Path) -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        report({"epoch": 1, "validation_auroc": 0.1 + number})
        if number == 1:
            raise TrainingDivergedError("too fast")
        return 0.5

    study, resumed = create_study("auroc", True), create_study("auroc", True)
    search(study, in_turn(objective), SPACE, "auroc", 3, 1)
    save_trials(study, tmp_path / "trials.json")
    load_trials(tmp_path / "trials.json", resumed)
    pd.testing.assert_frame_equal(
        tabulate_trials(resumed), tabulate_trials(study), check_exact=True
    )
    assert list(tabulate_trials(resumed)["state"]) == ["complete", "fail", "complete"]


def test_a_disk_that_is_full_ends_no_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    study = create_study("auroc", True)
    search(
        study,
        in_turn(smooth),
        SPACE,
        "auroc",
        2,
        3,
        lambda s: save_trials(s, tmp_path / "file/x.json"),
    )
    assert len(study.trials) == 2
    assert "the trials could not be kept in" in capsys.readouterr().out


def test_proposals_lie_in_the_space_and_get_better() -> None:
    table = searched(30, pruning=False)
    assert set(table["head_width"]) <= {8, 16, 32}
    assert table["dropout"].between(0, 0.5).all()
    assert table["learning_rate"].between(1e-4, 1e-2).all()
    assert set(table["state"]) == {"complete"}
    # The first ten are random.
    assert table["value"][10:].mean() > table["value"][:10].mean()


def test_trials_below_the_median_are_pruned_and_never_the_best() -> None:
    study = create_study("auroc", True)
    search(study, in_turn(smooth), SPACE, "auroc", 20, 3)
    table = tabulate_trials(study)
    pruned = table[table["state"] == "pruned"]
    assert 0 < len(pruned) < 20
    assert (pruned["number"] >= UNPRUNED_TRIALS).all()
    assert (pruned["epochs"] == 1).all()
    assert (
        find_best_params(study)["value"] == table.loc[table["state"] == "complete", "value"].max()
    )


def test_a_loss_is_minimised() -> None:
    study = create_study("loss", False)

    def objective(number: int, choice: Choice, report: Report) -> float:
        return float(choice["dropout"])

    search(study, in_turn(objective), SPACE, "loss", 5, 1)
    table = tabulate_trials(study)
    assert find_best_params(study)["dropout"] == table["dropout"].min()


def test_a_trial_that_diverges_does_not_end_the_search() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        if number != 1:
            raise TrainingDivergedError("too fast")
        return 0.5

    study = create_study("auroc", True)
    search(study, in_turn(objective), SPACE, "auroc", 3, 1)
    table = tabulate_trials(study)
    assert list(table["state"]) == ["fail", "complete", "fail"]
    assert table["value"].isna().tolist() == [True, False, True]
    assert find_best_params(study)["value"] == 0.5


def test_no_finished_trial_is_a_clear_error() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        raise TrainingDivergedError("too fast")

    study = create_study("auroc", True)
    search(study, in_turn(objective), SPACE, "auroc", 2, 1)
    with pytest.raises(UserError, match=r"tune\.space\.learning_rate"):
        find_best_params(study)


def test_other_errors_do_end_it() -> None:
    def objective(number: int, choice: Choice, report: Report) -> float:
        raise UserError("the image is gone")

    with pytest.raises(UserError, match="gone"):
        search(create_study("auroc", True), in_turn(objective), SPACE, "auroc", 2, 1)


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

    study = tune(Tuning(classifier, settings, train, validation, 7), watch)
    assert [(number, scores["epoch"]) for number, _, scores in heard] == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    result = tabulate_trials(study)
    assert list(result["epochs"]) == [2, 2]
    for number, choice, _ in heard:
        assert result.loc[number, list(choice)].to_dict() == pytest.approx(choice)
    for number in (0, 1):
        values = [scores["validation_auroc"] for n, _, scores in heard if n == number]
        assert result.loc[number, "value"] == max(values)
    again = tune(Tuning(classifier, settings, train, validation, 7))
    pd.testing.assert_frame_equal(tabulate_trials(again), result)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_of_equals_the_first_is_the_best() -> None:
    study = create_study("auroc", False)
    search(study, in_turn(lambda number, choice, report: 0.5), SPACE, "auroc", 3, 1)
    assert find_best_params(study)["dropout"] == study.trials[0].params["dropout"]
