"""Workers that share a search make each trial once, and one that dies loses its trial only."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import IntegrityError

from mammo.base.errors import UserError
from mammo.base.settings import Space
from mammo.tuning import shared
from mammo.tuning.cards import Report
from mammo.tuning.search import Choice, find_best_params, tabulate_trials
from mammo.tuning.shared import open_shared_study, share
from tests.imports import ROOT
from tests.support.choices import SPACE, quality, smooth

WORKER = """
import os
import sys
import time
from functools import partial
from pathlib import Path
from tests.mammo.tuning.test_shared import work

address, fate, folder = sys.argv[1:]
work(address, fate, Path(folder))
"""


def work(address: str, name: str, folder: Path) -> optuna.Study:
    """Take part in a search of six trials. Two workers wait for each other in their first one."""
    shared.HEARTBEAT, shared.GRACE = 1, 3

    def objective(number: int, choice: Choice, report: Report) -> float:
        if name == "dies":
            os.kill(os.getpid(), 9)
        (folder / name).touch()
        other = folder / ("second" if name == "first" else "first")
        while not other.exists():
            time.sleep(0.05)
        return smooth(number, choice, report)

    study, database = open_shared_study(address, "together", "auroc", pruning=False)
    share(study, database, objective, SPACE, "auroc", 6)
    return study


def test_workers_share_a_search_and_one_that_dies_loses_its_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEARTBEAT", "GRACE"):
        kept = getattr(shared, name)
        monkeypatch.setattr(shared, name, kept)  # put back afterwards
    address = os.environ.get("MAMMOFLOW_TEST_STORAGE") or f"sqlite:///{tmp_path}/study.db"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def worker(name: str) -> "subprocess.Popen[bytes]":
        command: list[str | Path] = [sys.executable, "-c", WORKER, address, name, tmp_path]
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    assert worker("dies").wait() == -9
    with worker("second") as second:
        study = work(address, "first", tmp_path)
        assert second.wait() == 0
    table = tabulate_trials(study)
    assert table["state"].value_counts().get("fail") == 1
    assert table["state"].value_counts()["complete"] in (6, 7)  # both may have found the dead one
    # What the dead one tried is tried again.
    [failed] = table.loc[table["state"] == "fail", list(Space.model_fields)].to_dict("records")
    done = table[table["state"] == "complete"]
    assert failed in done[list(Space.model_fields)].to_dict("records")
    best = find_best_params(study)
    assert best["value"] == done["value"].max() == pytest.approx(quality(best))


def test_a_database_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="OPTUNA_STORAGE: its database cannot be used"):
        open_shared_study(f"sqlite:///{tmp_path}/no/study.db", "together", "auroc", pruning=False)


def test_who_loses_the_race_for_the_tables_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    class BeatenOnce(optuna.storages.RDBStorage):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            tries.append(arguments)
            if len(tries) == 1:
                raise IntegrityError("CREATE TABLE studies", None, Exception("it exists"))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(optuna.storages, "RDBStorage", BeatenOnce)
    study, _ = open_shared_study(
        f"sqlite:///{tmp_path}/study.db", "together", "auroc", pruning=False
    )
    assert (study.study_name, len(tries)) == ("together", 2)
