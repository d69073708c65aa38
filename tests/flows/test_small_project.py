"""What the tests of small projects hang on: states in order, no run for twenty, failures told."""

from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from tests.flows import conftest
from tests.support import small_project
from tests.support.small_project import (
    COLD,
    HISTORY,
    find_crowds,
    in_order_of_history,
    keep_cache,
    retrained,
    take_cache,
)


def make_items(asked: dict[str, list[list[str]]]) -> list[pytest.Item]:
    """Tests by their module, each with the fixtures that it needs."""
    return [
        SimpleNamespace(nodeid=f"{module}.py::{number}", fixturenames=names)  # type: ignore[misc]
        for module, tests in asked.items()
        for number, names in enumerate(tests)
    ]


def test_tests_of_a_module_run_by_the_age_of_the_project_that_they_need() -> None:
    items = make_items(
        {
            "first": [["tmp_path"]],
            "audit": [["challenged", "registered"], ["registered"], []],
            "other": [["tmp_path"]],
            f"tests/{COLD}": [["unchanged_again", "registered"], ["registered"], ["registered"]],
        }
    )
    ordered = [item.nodeid.replace(".py::", " ") for item in in_order_of_history(items)]
    cold = [f"tests/{COLD} {number}" for number in (1, 2, 0)]
    assert ordered == ["first 0", *cold, "audit 2", "audit 1", "audit 0", "other 0"]


def test_the_module_whose_stages_all_run_is_there() -> None:
    assert len(list(Path(conftest.__file__).parent.rglob(f"{COLD}.py"))) == 1


def test_twenty_tests_on_one_run_are_told_and_nineteen_are_not() -> None:
    two = {"old": [["registered"]] * 20, "new": [["challenged", "registered"]] * 10}
    assert find_crowds(make_items(two), 19) == {"registered of old.py": 20}
    more = {"new": [["challenged", "registered"]] * 19 + [["registered"], ["drawn"]]}
    assert find_crowds(make_items(more), 19) == {"registered of new.py": 20}
    assert find_crowds(make_items({"new": more["new"][:19]}), 19) == {}


def test_twenty_tests_on_one_run_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_items({"new": [["registered"]] * (conftest.MOST + 1)})
    for item in items:
        monkeypatch.setattr(item, "add_marker", lambda name: None, raising=False)
    with pytest.raises(pytest.UsageError, match=r"more than 19 tests on one run: .*new\.py"):
        conftest.pytest_collection_modifyitems(items)


def test_what_the_stages_of_a_project_made_is_given_to_the_next_if_there_is_any(
    tmp_path: Path,
) -> None:
    one, two, kept = (tmp_path / name for name in ("one", "two", "kept"))
    for root in (one, two):
        (root / ".dvc/cache").mkdir(parents=True)
    take_cache(kept, two)
    assert list((two / ".dvc/cache").iterdir()) == []
    (one / ".dvc/cache/object").write_text("1")
    keep_cache(one, kept)
    take_cache(kept, two)
    assert (two / ".dvc/cache/object").read_text() == "1"


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
