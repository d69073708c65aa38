"""Live curves in MLflow while a stage runs, if the environment names a run to log them to.

The flow sets MLFLOW_RUN_ID (and MLFLOW_TRACKING_URI). Without it nothing is logged, MLflow is not
even imported, and the stage's outs are the same. The outs are also the same if MLflow does not
answer: hours of training are worth more than a curve.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mammo.base.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient

Log = Callable[[Mapping[str, float]], None]
Answer = TypeVar("Answer")

PAUSE = 300.0
"""Seconds without a request after MLflow has failed: each request may take its full time limit."""

_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own limits would stop a training for minutes, or for as long as a server says."""


def open_stage_log() -> Log:
    """Make a function that logs the scores of an epoch to the run that the environment names."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    return _Mlflow().log_to(run_id) if run_id else _log_nowhere


@contextmanager
def open_trial_runs(
    at_once: int = 1,
) -> Iterator[Callable[[int, Mapping[str, Any]], Log]]:
    """Yield a function that opens a run for a trial, nested under the one of the environment.

    It takes the trial's number and what it tries, and returns what logs the scores of its epochs.
    A run ends when the next one begins, or the next but `at_once - 1`, where so many trials run at
    once. A trial that MLflow did not open a run for has no curves.
    """
    parent = os.environ.get("MLFLOW_RUN_ID")
    if not parent:
        yield lambda *_: _log_nowhere
        return
    from mlflow.entities import Param

    mlflow = _Mlflow()
    current: list[str] = []
    ended: list[tuple[str, str]] = []  # runs and their status that MLflow does not know yet

    def close(status: str, kept: int = 0) -> None:
        done = current[: max(0, len(current) - kept)]
        ended.extend((run, status) for run in done)
        del current[: len(done)]
        for run in list(ended):
            if mlflow.ask("the end of a trial", partial(_end, *run)):
                ended.remove(run)

    def open_run(number: int, choice: Mapping[str, Any]) -> Log:
        close("FINISHED", at_once - 1)
        params = [Param(name, str(value)) for name, value in choice.items()]

        def start(client: "MlflowClient") -> str:
            experiment = client.get_run(parent).info.experiment_id
            tags = {"mlflow.parentRunId": parent}
            run = client.create_run(experiment, tags=tags, run_name=f"trial {number}")
            current.append(run.info.run_id)
            client.log_batch(run.info.run_id, params=params)
            return str(run.info.run_id)

        run_id = mlflow.ask(f"trial {number}", start)
        return mlflow.log_to(run_id) if run_id else _log_nowhere

    try:
        yield open_run
    except BaseException:
        close("FAILED")
        raise
    close("FINISHED")


def _end(run_id: str, status: str, client: "MlflowClient") -> bool:
    client.set_terminated(run_id, status)
    return True


class _Mlflow:
    """MLflow's client, for requests whose failure does not matter to a stage."""

    def __init__(self) -> None:
        for name, value in _LIMITS.items():
            os.environ.setdefault(name, value)
        self._again = 0.0  # time.monotonic() from which on requests are made

    def ask(self, what: str, request: Callable[["MlflowClient"], Answer]) -> Answer | None:
        """Return MLflow's answer; None if it fails, and then for the next PAUSE seconds."""
        if time.monotonic() < self._again:
            return None
        # The client only: the fluent functions keep a current run for the whole process.
        from mlflow import MlflowClient

        try:
            return request(MlflowClient())
        # MLflow, requests, SQLAlchemy and a proxy's page each have errors of their own, and no
        # curve is worth the hours of a training.
        except Exception as error:  # noqa: BLE001  (MLflow may raise anything)
            self._again = time.monotonic() + PAUSE
            first = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"MLflow did not take {what}: {first}; the stage goes on")
            return None

    def log_to(self, run_id: str) -> Log:
        """Make a function that logs the scores of an epoch to a run."""
        from mlflow.entities import Metric

        def log(scores: Mapping[str, float]) -> None:
            now, step = int(time.time() * 1000), int(scores["epoch"])
            metrics = [Metric(n, x, now, step) for n, x in scores.items() if n != "epoch"]
            self.ask(
                f"the scores of epoch {step}", lambda client: client.log_batch(run_id, metrics)
            )

        return log


def _log_nowhere(scores: Mapping[str, float]) -> None:
    """Log nothing: no run is named."""
