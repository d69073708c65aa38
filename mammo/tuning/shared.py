"""One search that several workers share in a database.

What is proposed depends on which worker is faster, so such a search is not repeated to the bit.
"""

import time
import warnings
from collections.abc import Callable

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from mammo.base.errors import UserError
from mammo.base.settings import Space
from mammo.classifier_training.examples import dump_examples
from mammo.classifier_training.fit import TrainingDivergedError
from mammo.kept.checkpoint import hash_inputs
from mammo.tuning.cards import Report, train_trial
from mammo.tuning.search import (
    Choice,
    Objective,
    Tuning,
    Watch,
    build_pruner,
    build_report,
    choose_direction,
    describe_settings,
    plan_trial,
    propose,
)

HEARTBEAT, GRACE = 20, 80  # seconds: between a worker's heartbeats, and how long none may come


def tune_shared(tuning: Tuning, watch: Watch | None, storage: str) -> optuna.Study:
    """Do a share of a search that several workers share; return when all trials have ended.

    Args:
        tuning: what to tune.
        watch: as for `tune`.
        storage: address of a database, in SQLAlchemy's form. Every worker with the same address
            and the same arguments takes part in the same search.

    Raises:
        UserError: if the database cannot be reached.
    """
    settings, select_by = tuning.settings, tuning.classifier.select_by
    data = dump_examples(tuning.train, tuning.validation)
    name = f"mammoflow-{hash_inputs(__name__, describe_settings(tuning), data, {})[:32]}"
    study, database = open_shared_study(storage, name, select_by, settings.pruning)

    def objective(number: int, choice: Choice, report: Report) -> float:
        trial = plan_trial(tuning, watch, number, choice, report)
        return train_trial(trial, tuning.train, tuning.validation)

    share(study, database, objective, settings.space, select_by, settings.trials)
    return study


def open_shared_study(
    storage: str, name: str, select_by: str, pruning: bool
) -> tuple[optuna.Study, RDBStorage]:
    """Open the study of this name in a database; create the study and its tables if needed.

    Returns:
        The study and its database.

    Raises:
        UserError: if the database cannot be reached.
    """
    from sqlalchemy.exc import SQLAlchemyError  # not for a search without a database: half a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        database = _open_database(storage)
        study = optuna.create_study(
            storage=database,
            study_name=name,
            direction=choose_direction(select_by),
            pruner=build_pruner(pruning),
            # Without it, workers that start together would all try the same.
            sampler=optuna.samplers.TPESampler(constant_liar=True),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"OPTUNA_STORAGE: its database cannot be used ({reason}); start it, or unset the"
            f" variable to tune without a database"
        ) from None
    return study, database


def _open_database(storage: str) -> RDBStorage:
    """Open a database for shared studies; an empty one gets its tables."""
    from sqlalchemy.exc import SQLAlchemyError

    attempts = 3
    while True:
        attempts -= 1
        try:
            return optuna.storages.RDBStorage(
                storage,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=1),
            )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
            # Workers that start together all make the tables, and PostgreSQL lets one succeed.
            if not attempts:
                raise
            time.sleep(1)


def share(
    study: optuna.Study,
    database: RDBStorage,
    objective: Objective,
    space: Space,
    select_by: str,
    trials: int,
) -> None:
    """Run trials of a shared study until all workers together have ended `trials` of them.

    A trial whose worker dies is tried once more, by the worker that notices it; twice, if two
    notice it at the same moment. Of workers that start the last trial at the same moment, one
    gives its own up.

    Args:
        study: from `open_shared_study`.
        database: from `open_shared_study`.
        objective: as for `search`.
        space: to choose from.
        select_by: which of an epoch's scores is compared.
        trials: how many in all, without second tries.
    """
    run = _build_runner(objective, space, select_by)

    def run_if_wanted(trial: optuna.Trial) -> float:
        # At once: Optuna's own thread may be late, and a trial whose worker dies before the first
        # heartbeat would count as running for ever.
        _record_heartbeat(database, study.study_name, trial.number)
        found = study.get_trials(deepcopy=False)
        retry = RetryHeartbeatStaleTrialCallback.retried_trial_number(found[trial.number])
        if retry is None and _count_first_tries(found[: trial.number]) >= trials:
            raise optuna.TrialPruned
        return run(trial)

    while True:
        optuna.storages.fail_stale_trials(study)
        found = study.get_trials(deepcopy=False)
        states = [trial.state for trial in found]
        if TrialState.WAITING in states or _count_first_tries(found) < trials:
            study.optimize(run_if_wanted, n_trials=1, catch=(TrainingDivergedError,))
        elif TrialState.RUNNING in states:
            time.sleep(HEARTBEAT)
        else:
            return


def _record_heartbeat(database: RDBStorage, study: str, number: int) -> None:
    study_id = database.get_study_id_from_name(study)
    trial_id = database.get_trial_id_from_study_id_trial_number(study_id, number)
    database.record_heartbeat(trial_id)


def _count_first_tries(found: list[FrozenTrial]) -> int:
    """Count the trials that are not the second try of another."""
    number_of = RetryHeartbeatStaleTrialCallback.retried_trial_number
    return sum(number_of(trial) is None for trial in found)


def _build_runner(
    objective: Objective, space: Space, select_by: str
) -> Callable[[optuna.Trial], float]:
    """Build the function that Optuna calls for each trial."""

    def run(trial: optuna.Trial) -> float:
        report = build_report(trial, select_by)
        return objective(trial.number, propose(trial, space), report)

    return run
