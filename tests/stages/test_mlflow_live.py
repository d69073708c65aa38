"""Curves appear in MLflow while a stage runs, and whether they do changes no byte of its outs."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mammo.base.atomic_files import write_json
from mammo.base.settings import Params, Space
from stages import mlflow_live
from stages.mlflow_live import open_stage_log, open_trial_runs
from tests.imports import ROOT
from tests.support.learnable import tiny_params, write_outputs
from tests.support.stage_runs import BEST, train, tune

SCORES = {"epoch": 2, "validation_auroc": 0.75}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store, whose tables take seconds to make, for all tests of this module."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@pytest.fixture
def parent(store: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = MlflowClient(store).create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    return run


def children(parent: Run) -> list[Run]:
    wanted = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return sorted(MlflowClient().search_runs(["0"], wanted), key=lambda run: str(run.info.run_name))


def curve(run: Run, name: str) -> list[tuple[int, float]]:
    history = MlflowClient().get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value) for metric in history]


def test_an_epochs_scores_go_to_the_run_named(parent: Run) -> None:
    log = open_stage_log()
    log({"epoch": 1, "validation_auroc": 0.5})
    log(SCORES)
    assert curve(parent, "validation_auroc") == [(1, 0.5), (2, 0.75)]
    assert curve(parent, "epoch") == []


def test_each_trial_is_a_nested_run(parent: Run) -> None:
    with open_trial_runs() as open_run:
        for number in range(2):
            open_run(number, {"dropout": 0.1 * number})(SCORES)
            assert children(parent)[number].info.status == "RUNNING"
    runs = children(parent)
    assert [run.info.run_name for run in runs] == ["trial 0", "trial 1"]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert [run.data.params for run in runs] == [{"dropout": "0.0"}, {"dropout": "0.1"}]
    assert all(curve(run, "validation_auroc") == [(2, 0.75)] for run in runs)


def test_a_trial_that_fails_is_not_left_running(parent: Run) -> None:
    def interrupted() -> None:
        with open_trial_runs() as open_run:
            open_run(0, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert children(parent)[0].info.status == "FAILED"


def test_a_store_that_stops_taking_scores_does_not_end_the_training(
    parent: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_stage_log()

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    log(SCORES)
    assert "epoch 2: the disk is full" in capsys.readouterr().out


METHODS = ("get_run", "create_run", "log_batch", "set_terminated")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error",
    [MlflowException("out of order"), requests.ConnectionError("no route"), ValueError("a page")],
    ids=lambda error: type(error).__name__,
)
def test_an_outage_of_mlflow_ends_no_tuning(
    parent: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
    error: Exception,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MlflowClient, method, refuse)
    done = []
    with open_trial_runs() as open_run:
        for number in range(2):
            open_run(number, {"dropout": 0.1})(SCORES)
            done.append(number)
    assert done == [0, 1]
    # Told once: then MLflow is left alone.
    assert capsys.readouterr().out.count(f"{error}; the stage goes on") == 1


def test_after_an_outage_the_curves_go_on_and_every_run_is_closed(
    parent: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_live, "PAUSE", 0.0)

    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no route")

    with open_trial_runs() as open_run:
        log = open_run(0, {})
        with monkeypatch.context() as away:
            for method in METHODS:
                away.setattr(MlflowClient, method, refuse)
            log(SCORES)
            open_run(1, {})(SCORES)  # neither the end of the one nor the other gets through
        open_run(2, {})(SCORES)
    runs = children(parent)
    assert [run.info.run_name for run in runs] == ["trial 0", "trial 2"]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert curve(runs[1], "validation_auroc") == [(2, 0.75)]


HANGS = """
import time
from stages.mlflow_live import open_stage_log, open_trial_runs
start = time.monotonic()
log = open_stage_log()
for epoch in range(20):
    log({"epoch": epoch, "loss": 0.5})
with open_trial_runs() as open_run:
    for number in range(5):
        open_run(number, {"dropout": 0.1})({"epoch": 1})
print("seconds", time.monotonic() - start)
"""


def test_a_server_that_never_answers_does_not_let_a_training_stand_still() -> None:
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        env = {name: x for name, x in os.environ.items() if not name.startswith("MLFLOW_")}
        env |= {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        env |= {"MLFLOW_RUN_ID": "0" * 32, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", HANGS]
        said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    # Two look once each, for ten seconds.
    assert 18 < float(said.split("seconds ")[1]) < 120, said
    assert said.count("the stage goes on") == 2


def test_without_a_run_mlflow_is_not_even_imported() -> None:
    code = (
        "import sys; from stages.mlflow_live import open_stage_log, open_trial_runs\n"
        "open_stage_log()({'epoch': 1})\n"
        "with open_trial_runs() as open_run: open_run(0, {})({'epoch': 1})\n"
        "assert 'mlflow' not in sys.modules"
    )
    env = {name: x for name, x in os.environ.items() if name != "MLFLOW_RUN_ID"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_watched_or_not_the_outs_are_the_same(
    parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outputs(tmp_path / "outputs")
    write_json(tmp_path / "outputs" / "best_params.json", BEST)
    stages: tuple[Callable[[Params, Path, Path], dict[str, bytes]], ...] = (tune, train)
    watched = [
        stage(tiny_params(), tmp_path / "outputs", tmp_path / f"watched{number}")
        for number, stage in enumerate(stages)
    ]
    assert len(curve(parent, "validation_auroc")) == 1
    assert [len(curve(run, "train_loss")) for run in children(parent)] == [1, 1]
    assert set(children(parent)[0].data.params) == set(Space.model_fields)
    monkeypatch.delenv("MLFLOW_RUN_ID")
    alone = [
        stage(tiny_params(), tmp_path / "outputs", tmp_path / f"alone{number}")
        for number, stage in enumerate(stages)
    ]
    assert watched == alone
