"""Work is shared out without loss, and a process that dies ends all of them with a sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mammo.base.errors import UserError
from mammo.learning import parallel
from mammo.learning.parallel import WHOLE, Part, check_cards, run_together
from tests.imports import ROOT
from tests.support.processes import gone

MODULE = "tests.support.together"


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("pictures", [1, 11, 12, 13, 17, 24])
def test_each_picture_of_each_batch_counts_once(pictures: int, count: int) -> None:
    parts = [Part(index, count).split_batches(pictures, 12) for index in range(count)]
    own = 12 // count
    assert {len(counted) for _, counted in parts} == {-(-pictures // 12)}
    for batch in range(-(-pictures // 12)):
        whole = list(range(12 * batch, min(12 * batch + 12, pictures)))
        found = []
        for positions, counted in parts:
            mine = positions[own * batch : own * batch + own]
            assert mine  # or the processes would not take equally many steps
            assert counted[batch][1] == len(whole)
            found += mine[: counted[batch][0]]
        assert found == whole


def test_whole_batches_are_predicted_by_one_process_each() -> None:
    parts = [Part(index, 2).take_batches(11, 4) for index in range(2)]
    assert parts == [[0, 1, 2, 3, 8, 9, 10], [4, 5, 6, 7]]
    assert Part(2, 3).take_batches(5, 4) == []
    assert WHOLE.take_batches(5, 4) == list(range(5))


def test_each_process_needs_a_gpu_of_its_own_if_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MAMMOFLOW_DEVICE", raising=False)
    for there, named, complaint in (
        (0, None, None),
        (2, None, None),
        (1, None, "torch sees 1 of this machine's GPUs"),
        (1, "cpu", None),
        (4, "cuda:1", "names one GPU for all"),
    ):
        monkeypatch.setattr(parallel, "count_cards", lambda there=there: there)
        if named:
            monkeypatch.setenv("MAMMOFLOW_DEVICE", named)
        if complaint is None:
            check_cards(2)
            continue
        with pytest.raises(UserError, match=f"classifier.processes = 2, but .*{complaint}"):
            check_cards(2)


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("is killed", r"process 1 of 2 \(counted from 0\) was killed by SIGKILL, so .* run the st"),
        ("says a sentence", r"^film\.png: cannot be read$"),
    ],
)
def test_a_process_that_is_lost_ends_all_with_a_sentence(
    fate: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=sentence):
        run_together(MODULE, [fate, str(tmp_path)], 2, 1)
    assert all(gone(int((tmp_path / name).read_text())) for name in "01")


def test_what_a_process_said_of_its_failure_is_told(tmp_path: Path) -> None:
    said = tmp_path / "error.json"
    said.write_text(
        '{"message": {"message": "MemoryError: no room", "extraInfo": {"timestamp": 1}}}'
    )
    failures = {
        0: ProcessFailure(0, 11, -signal.SIGTERM, str(tmp_path / "none.json")),
        1: ProcessFailure(1, 12, 1, str(said)),
    }
    told = parallel._describe_failures(failures, 2)
    assert told.startswith("process 1 of 2 (counted from 0) ended with status 1 (MemoryError: no r")


ALONE = f"""
import sys
from mammo.learning.parallel import run_together
run_together({MODULE!r}, sys.argv[1:], 2, 1)
"""


def test_they_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, "waits", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "this is 0\n"
        while not (tmp_path / "1").exists():
            time.sleep(0.05)
        os.kill(starter.pid, signal.SIGKILL)
    assert all(gone(int((tmp_path / name).read_text()), 10) for name in "01")
