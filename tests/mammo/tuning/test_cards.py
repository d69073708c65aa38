"""On two GPUs a search comes to what it comes to on none; a worker that dies ends it, by its name.

The GPUs are names only: the workers compute on the CPU.
"""

import os
import signal
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import Space, Tune
from mammo.classifier_training.examples import Examples, gather
from mammo.classifier_training.fit import Scores
from mammo.learning import device
from mammo.learning.device import list_cards
from mammo.tuning.cards import CARD, Report, Trial, start_workers
from mammo.tuning.search import Choice, Tuning, tabulate_trials, tune
from tests.support.learning import tiny, write_breasts

SPACE = Space(head_width=[8, 16], dropout=(0.0, 0.5), learning_rate=(1e-4, 1e-2))
SETTINGS = Tune(trials=4, epochs=2, at_once=2, pruning=True, space=SPACE)
CLASSIFIER = tiny(select_by="loss")


def read(folder: Path) -> tuple[Examples, Examples]:
    """Write and read the examples; in a worker, leave a note of the GPU that it sees."""
    if CARD in os.environ:
        (folder / f"seen by {os.environ[CARD]}").touch()
    # In one folder the others would read what is half-written.
    own = folder / f"pictures of {os.environ.get(CARD, 'all')}"
    own.mkdir()
    table = write_breasts(own, women=4)
    train, validation = (gather(table, name, own, CLASSIFIER) for name in ("train", "validation"))
    return train, validation


def die(folder: Path) -> tuple[Examples, Examples]:
    os.kill(os.getpid(), signal.SIGKILL)
    return read(folder)


def test_a_search_on_two_gpus_is_that_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cpu")
    monkeypatch.delenv(CARD, raising=False)
    pin(0, threads=1)
    heard: dict[str, list[tuple[int, float, float]]] = {}

    def watch(name: str, number: int, choice: Choice) -> Report:
        def hear(scores: Scores) -> None:
            heard.setdefault(name, []).append((number, scores["epoch"], scores["train_loss"]))

        return hear

    tuning = Tuning(CLASSIFIER, SETTINGS, *read(tmp_path), 7)
    alone = tune(tuning, partial(watch, "alone"))
    assert "GPUs" not in capsys.readouterr().out
    cards = ["0", "GPU-4f1a", "2"]
    both = tune(tuning, partial(watch, "both"), None, cards, partial(read, tmp_path))
    assert "tuning on 2 GPUs, 2 trials in a round" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("seen*")} == {"seen by 0", "seen by GPU-4f1a"}
    pd.testing.assert_frame_equal(tabulate_trials(both), tabulate_trials(alone), check_exact=True)
    assert len(both.trials) == 4
    assert sorted(heard["both"]) == sorted(heard["alone"])


def test_a_worker_that_dies_ends_the_search_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cpu")
    trial = Trial(5, CLASSIFIER, 1, lambda scores: None)
    complaint = "trial 5 on GPU 3 was killed by SIGKILL, .* run the stage again"
    with (
        pytest.raises(UserError, match=complaint),
        start_workers(["3"], partial(die, tmp_path)) as workers,
    ):
        workers.train([trial])


def test_gpus_are_named_as_the_environment_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count_cards", lambda: 2)
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    monkeypatch.delenv(CARD, raising=False)
    assert list_cards() == ["0", "1"]
    monkeypatch.setenv(CARD, "3,GPU-4f1a")
    assert list_cards() == ["3", "GPU-4f1a"]
    monkeypatch.setenv("MAMMOFLOW_DEVICE", "cuda:1")
    assert list_cards() == []
    monkeypatch.delenv("MAMMOFLOW_DEVICE")
    monkeypatch.setattr(device, "count_cards", lambda: 0)
    assert list_cards() == []
