"""Live curves in MLflow while a stage runs, if the environment names a run to log them to.

The flow sets MLFLOW_RUN_ID (and MLFLOW_TRACKING_URI). Without it nothing is logged, MLflow is not
even imported, and the stage's outs are the same.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mammo.progress import say

Log = Callable[[Mapping[str, float]], None]


def stage_run() -> Log:
    """What logs the scores of an epoch to the run that the environment names."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    return _log_to(run_id) if run_id else _log_nowhere


@contextmanager
def trial_runs() -> Iterator[Callable[[int, Mapping[str, Any]], Log]]:
    """Yield a function that opens a run for a trial, nested under the one of the environment.

    It takes the trial's number and what it tries, and returns what logs the scores of its epochs.
    A run ends when the next one begins.
    """
    parent = os.environ.get("MLFLOW_RUN_ID")
    if not parent:
        yield lambda number, choice: _log_nowhere
        return
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    current: list[str] = []

    def close(status: str) -> None:
        while current:
            client.set_terminated(current.pop(), status)

    def open_run(number: int, choice: Mapping[str, Any]) -> Log:
        close("FINISHED")
        tags = {"mlflow.parentRunId": parent}
        run_id = client.create_run(experiment, tags=tags, run_name=f"trial {number}").info.run_id
        current.append(run_id)
        for name, value in choice.items():
            client.log_param(run_id, name, value)
        return _log_to(run_id)

    try:
        yield open_run
    except BaseException:
        close("FAILED")
        raise
    close("FINISHED")


def _log_to(run_id: str) -> Log:
    # The client only: the fluent functions keep a current run for the whole process.
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    client = MlflowClient()

    def log(scores: Mapping[str, float]) -> None:
        now, step = int(time.time() * 1000), int(scores["epoch"])
        metrics = [Metric(n, x, now, step) for n, x in scores.items() if n != "epoch"]
        try:
            client.log_batch(run_id, metrics)
        except MlflowException as error:
            # Hours of training are worth more than a point of a curve.
            say(f"MLflow did not take the scores of epoch {step}: {error}")

    return log


def _log_nowhere(scores: Mapping[str, float]) -> None:
    """Nobody is watching."""
