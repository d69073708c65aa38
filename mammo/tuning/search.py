"""The search for head width, dropout and learning rate, with Optuna.

In a search of one process, each trial's sampler is seeded from the seed and the trial's number, so
a run of thirty trials proposes the same as two runs of fifteen, and a search that was interrupted
can go on after its last complete trial. With `tune.at_once`, trials come in rounds of so many,
which know the results of earlier rounds only: they are the same on one GPU, on several and on none.

Several workers that share one search: `mammo.tuning.shared`.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mammo.base.atomic_files import read_json, write_json
from mammo.base.determinism import derive_seed
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.base.settings import Classifier, Space, Tune
from mammo.classifier.network import build_classifier
from mammo.classifier_training.examples import Examples, dump_examples
from mammo.classifier_training.fit import Scores, TrainingDivergedError
from mammo.kept.checkpoint import describe_machine, hash_inputs
from mammo.learning.device import choose_device
from mammo.tuning.cards import (
    CardWorkers,
    Read,
    Report,
    Trial,
    TrialOutcome,
    start_workers,
    train_trial,
)

UNPRUNED_TRIALS = 3  # trials that are never pruned: the median of fewer means little

Choice = dict[str, Any]
Attempt = tuple[int, Choice, Report]
Objective = Callable[[int, Choice, Report], float]
RunRound = Callable[[Sequence[Attempt]], list[TrialOutcome]]
Watch = Callable[[int, Choice], Report]


def create_study(select_by: str, pruning: bool) -> optuna.Study:
    """An empty study, in memory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction=choose_direction(select_by), pruner=build_pruner(pruning))


def choose_direction(select_by: str) -> StudyDirection:
    """Whether less of a score is better, or more."""
    return StudyDirection.MINIMIZE if select_by == "loss" else StudyDirection.MAXIMIZE


def build_pruner(pruning: bool) -> optuna.pruners.BasePruner:
    """Ends trials that are worse than half of the earlier ones; or none."""
    return optuna.pruners.MedianPruner(UNPRUNED_TRIALS) if pruning else optuna.pruners.NopPruner()


def propose(trial: optuna.Trial, space: Space) -> Choice:
    """Propose values for the settings that are tuned."""
    return {
        "head_width": trial.suggest_categorical("head_width", space.head_width),
        "dropout": trial.suggest_float("dropout", *space.dropout),
        "learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True),
    }


def search(
    study: optuna.Study,
    run_round: RunRound,
    space: Space,
    select_by: str,
    trials: int,
    seed: int,
    keep: Callable[[optuna.Study], None] | None = None,
    at_once: int = 1,
) -> None:
    """Run trials until the study holds `trials` of them.

    Args:
        study: from `create_study`; the trials that it already holds count.
        run_round: runs a round of trials, such as `in_turn`. It calls a trial's report with the
            scores of each epoch; report raises `optuna.TrialPruned` if the trial is not worth going
            on.
        space: to choose from.
        select_by: which of an epoch's scores is compared.
        trials: how many in all.
        seed: the study's.
        keep: called after each round.
        at_once: trials in a round. What is proposed, and pruned, follows from earlier rounds only.
    """
    while len(study.trials) < trials:
        first = len(study.trials)
        asked: list[optuna.Trial] = []
        wanted: list[Attempt] = []
        for number in range(first, min(first + at_once, trials)):
            study.sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, f"trial{number}"))
            asked.append(study.ask())
            choice = propose(asked[-1], space)
            wanted.append((number, choice, build_report(asked[-1], select_by)))
        for trial, outcome in zip(asked, run_round(wanted), strict=True):
            _tell(study, trial, outcome)
        for ended in study.trials[first:]:
            state = ended.state.name.lower()
            say(f"trial {ended.number}: {state}, value {ended.value}, {ended.params}")
        if keep is not None:
            keep(study)


def in_turn(objective: Objective) -> RunRound:
    """Run the trials of a round in this process, one after the other.

    Args:
        objective: takes (trial number, choice, report) and returns the trial's value.
    """

    def run(attempt: Attempt) -> TrialOutcome:
        try:
            return TrialOutcome(objective(*attempt))
        except (optuna.TrialPruned, TrainingDivergedError) as error:
            return TrialOutcome(None, error)

    return lambda wanted: [run(attempt) for attempt in wanted]


def build_report(trial: optuna.Trial, select_by: str) -> Report:
    """Build the function that hears of a trial's epochs."""

    def report(scores: Scores) -> None:
        trial.report(scores[f"validation_{select_by}"], step=int(scores["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: TrialOutcome) -> None:
    """Tell a study how a trial has ended.

    Raises:
        Exception: the one that ended it, if it is to end the search.
    """
    if outcome.error is None:
        study.tell(trial, outcome.value)
    elif isinstance(outcome.error, optuna.TrialPruned):
        study.tell(trial, state=TrialState.PRUNED)
    elif isinstance(outcome.error, TrainingDivergedError):
        study.tell(trial, state=TrialState.FAIL)
    else:
        raise outcome.error


def save_trials(study: optuna.Study, path: Path) -> None:
    """Write the trials of a study to a file, in place of those written before.

    A full disk does not end the search: a message is printed, and the file before stays.
    """
    trials = [
        {
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "distributions": {
                name: distribution_to_json(space) for name, space in trial.distributions.items()
            },
            "epochs": list(trial.intermediate_values.items()),
        }
        for trial in study.trials
    ]
    try:
        write_json(path, trials)
    except (OSError, ValueError) as error:
        say(f"the trials could not be kept in {path.parent}: {error}")


def load_trials(path: Path, study: optuna.Study) -> None:
    """Give an empty study the trials that `save_trials` wrote, if any can be read."""
    if not path.exists():
        return
    try:
        trials = [
            create_trial(
                state=TrialState[kept["state"]],
                value=kept["value"],
                params=kept["params"],
                distributions={
                    name: json_to_distribution(space)
                    for name, space in kept["distributions"].items()
                },
                intermediate_values={int(epoch): float(x) for epoch, x in kept["epochs"]},
            )
            for kept in read_json(path)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        say(f"{path}: cannot be read ({error}); the search starts from its beginning")
        return
    study.add_trials(trials)
    say(f"going on after trial {len(trials) - 1}: the trials up to it were kept")


@dataclass(frozen=True)
class Tuning:
    """What is tuned, and on what: all that the result of a search follows from, besides code."""

    classifier: Classifier  # the settings that are not tuned
    settings: Tune  # of the search
    train: Examples  # to learn from
    validation: Examples  # to compare on
    seed: int  # of the samplers and the trainings


def tune(
    tuning: Tuning,
    watch: Watch | None = None,
    checkpoints: Path | None = None,
    cards: Sequence[str] = (),
    read: Read | None = None,
) -> optuna.Study:
    """Search with trainings of `tune.epochs` epochs, in this process or on several GPUs.

    Every training has the same seed, so that only what is tried makes trials differ. A trial's
    value is that of its best epoch.

    Args:
        tuning: what to tune.
        watch: called with each trial's number and choice; what it returns is called with the
            scores of each of its epochs.
        checkpoints: a folder for the trials that have ended. Without it, a search that was
            interrupted starts again; the result is the same. Once the result is safe, the folder
            is of no use.
        cards: GPUs, as CUDA_VISIBLE_DEVICES names them. With two or more, and as many trials at
            once, each GPU has a process of its own. That changes nothing in the result, if the GPUs
            are of one kind.
        read: reads the same examples in such a process: see `cards.start_workers`.

    Raises:
        UserError: a process on a GPU died.
    """
    settings = tuning.settings
    study = create_study(tuning.classifier.select_by, settings.pruning)
    keep = None
    if checkpoints is not None:
        path = _name_trials(tuning, checkpoints)
        load_trials(path, study)
        keep = partial(save_trials, path=path)
    chosen = cards[: settings.at_once]
    spread = read is not None and len(chosen) > 1 and len(study.trials) < settings.trials
    with start_workers(chosen, read) if read and spread else nullcontext() as workers:
        plan = partial(plan_trial, tuning, watch)
        if workers is None:
            run_round = in_turn(
                lambda *wanted: train_trial(plan(*wanted), tuning.train, tuning.validation)
            )
        else:
            say(f"tuning on {len(chosen)} GPUs, {settings.at_once} trials in a round")
            run_round = partial(_train_on_workers, workers, plan)
        search(
            study,
            run_round,
            settings.space,
            tuning.classifier.select_by,
            settings.trials,
            tuning.seed,
            keep,
            settings.at_once,
        )
    return study


def _train_on_workers(
    workers: CardWorkers, plan: Callable[[int, Choice, Report], Trial], wanted: Sequence[Attempt]
) -> list[TrialOutcome]:
    return workers.train([plan(*attempt) for attempt in wanted])


def _name_trials(tuning: Tuning, checkpoints: Path) -> Path:
    """Name the file of a search's trials by a hash of all that decides it."""
    torch.manual_seed(derive_seed(tuning.seed, "fit"))
    weights = build_classifier(tuning.classifier).state_dict()
    facts = [
        *describe_settings(tuning),
        describe_machine(choose_device()) | {"optuna": optuna.__version__},
    ]
    data = dump_examples(tuning.train, tuning.validation)
    name = hash_inputs(__name__, facts, data, weights)
    return checkpoints / f"{name}.json"


def describe_settings(tuning: Tuning) -> list[Any]:
    """Describe what decides a search, besides code and data."""
    settings = (tuning.classifier, tuning.settings)
    return [*(one.model_dump(mode="json") for one in settings), tuning.seed]


def plan_trial(
    tuning: Tuning, watch: Watch | None, number: int, choice: Choice, report: Report
) -> Trial:
    """Plan the training of one trial, and say that it begins."""
    settings = tuning.settings
    say(f"trial {number} of {settings.trials}: {choice}")
    listener = None if watch is None else watch(number, choice)

    def on_epoch(scores: Scores) -> None:
        if listener is not None:
            listener(scores)
        report(scores)

    tried = tuning.classifier.model_copy(update={**choice, "epochs": settings.epochs})
    return Trial(number, tried, derive_seed(tuning.seed, "fit"), on_epoch)


def tabulate_trials(study: optuna.Study) -> pd.DataFrame:
    """Make a table with one row a trial: number, choice, value, state and epochs; no times.

    A pruned trial's value is its last; one that diverged, or whose worker died, has none.
    """
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                **{name: trial.params.get(name) for name in Space.model_fields},
                "value": trial.value,
                "state": trial.state.name.lower(),
                "epochs": len(trial.intermediate_values),
            }
            for trial in study.trials
        ]
    )


def find_best_params(study: optuna.Study) -> Choice:
    """Find head_width, dropout, learning_rate and value of the best trial; of equals, the first.

    Raises:
        UserError: if no trial ran to its end.
    """
    done: list[FrozenTrial] = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        raise UserError(
            "no trial of the tuning ran to its end, all diverged: lower the range of"
            " tune.space.learning_rate in params.yaml"
        )
    # Not study.best_trial: of equal trials, a database may return any.
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    best = max(done, key=lambda trial: sign * float(trial.values[0]))
    return {**{name: best.params[name] for name in Space.model_fields}, "value": best.value}
