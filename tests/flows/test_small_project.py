"""What the tests of the small project hang on: its states come in order, and a failure is told."""

from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from tests.flows import conftest
from tests.support import small_project
from tests.support.small_project import HISTORY, in_order_of_history, retrained


def test_tests_run_by_the_age_of_the_project_that_they_need_wherever_they_lie() -> None:
    asked = {
        "audit": ["leaking", "challenged", "registered"],
        "other": ["tmp_path"],
        "promotion": ["challenged", "registered"],
        "end": ["registered"],
        "again": ["unchanged_again", "registered"],
        "after": [],
    }
    items = [SimpleNamespace(name=name, fixturenames=names) for name, names in asked.items()]
    ordered = [item.name for item in in_order_of_history(items)]  # type: ignore[arg-type]
    assert ordered == ["other", "end", "again", "promotion", "audit", "after"]


def test_every_state_of_the_history_is_a_fixture() -> None:
    assert [state for state in HISTORY if not hasattr(conftest, state)] == []


def test_a_retrain_that_fails_is_told_in_few_lines_and_once_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "".join(f"line {number}\n" for number in range(200)) + "error: no such stage\n"
    failed = CompletedProcess("retrain", 1, said)
    monkeypatch.setattr(small_project, "mammoflow", lambda *arguments, **settings: failed)
    with pytest.raises(pytest.fail.Exception) as caught:
        retrained("challenged", tmp_path)
    told = str(caught.value)
    assert told.startswith("no 'challenged' project: its `mammoflow retrain` ended with status 1")
    assert told.endswith("error: no such stage")
    assert len(told.splitlines()) < 20
    assert capsys.readouterr().out.strip() == said.strip()
