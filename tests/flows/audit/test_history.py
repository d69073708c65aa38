"""Audits are kept side by side, and what a version shows is the newest that could judge."""

import itertools
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from flows.audit.history import Audited, keep, list_audits
from flows.audit.record import Audit
from flows.cli.app import app
from flows.snapshots.environment import describe_environment
from flows.tracking.names import MODEL
from flows.tracking.registry import get_version
from mammo.base.errors import UserError
from tests.support.small_project import store

FULL, UNSOUND, ANOTHER = "reproduced bit for bit", "reproduced, but unsound", "not reproduced"
NOT_JUDGED, QUICK = "cannot be judged", "records agree, not re-run"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a registry that has a version with a run."""
    (tmp_path / "mlruns").mkdir()
    client = store(tmp_path)
    experiment = client.create_experiment("mammoflow", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, f"{tmp_path}/artifacts/{run}/artifacts", run)
    monkeypatch.setattr("flows.audit.history.identify_person", lambda root: "Ann <ann@localhost>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audit(verdict: str, quick: bool = False, second: int = 0) -> Audit:
    empty = dict.fromkeys(Audit.model_fields)
    return Audit.model_validate(
        {
            **empty,
            "schema_version": 2,
            "verdict": verdict,
            "sentence": f"it is {verdict}",
            "quick": quick,
            "date": f"2026-11-26T10:00:{second:02}+00:00",
            "model": MODEL,
            "version": 1,
            "environment_now": describe_environment(),
            "splits": {},
            **{name: [] for name in ("settings", "checks", "findings", "stages", "metrics")},
            "environment_differences": [],
        }
    )


def shown() -> str:
    return get_version(1).tags["audit_verdict"]


def test_every_audit_is_a_record_of_its_own(root: Path) -> None:
    folders = [keep(root, audit(FULL)), keep(root, audit(FULL)), keep(root, audit(QUICK, True, 9))]
    assert len(set(folders)) == 3  # two of them within one second
    kept = list_audits(get_version(1))
    assert {one.report for one in kept} == set(folders)
    assert [(one.verdict, one.quick, one.who) for one in kept] == [
        (FULL, False, "Ann <ann@localhost>"),
        (FULL, False, "Ann <ann@localhost>"),
        (QUICK, True, "Ann <ann@localhost>"),
    ]
    client = MlflowClient()
    run = str(get_version(1).run_id)
    for one in kept:
        names = {Path(item.path).name for item in client.list_artifacts(run, one.report)}
        assert names == {"index.html", "audit.json"}


@pytest.mark.parametrize("rows", [*itertools.permutations([FULL, NOT_JUDGED, QUICK])])
def test_a_quick_one_or_one_that_could_not_judge_hides_nothing(
    root: Path, rows: tuple[str, ...]
) -> None:
    for second, verdict in enumerate(rows):
        keep(root, audit(verdict, verdict == QUICK, second))
    assert shown() == FULL
    keep(root, audit(ANOTHER, second=30))
    assert shown() == ANOTHER
    keep(root, audit(UNSOUND, second=20))  # of an older date, kept later
    assert shown() == ANOTHER


def test_one_with_too_few_women_to_tell_hides_nothing_either(root: Path) -> None:
    keep(root, audit(FULL, second=1))
    keep(root, audit("too small to tell", second=2))
    assert shown() == FULL


def test_without_a_full_one_the_newest_is_shown(root: Path) -> None:
    keep(root, audit(NOT_JUDGED, second=1))
    keep(root, audit(QUICK, True, 2))
    assert shown() == QUICK


def test_an_audit_from_before_there_were_records_is_not_hidden_either(root: Path) -> None:
    client = MlflowClient()
    tags = {"verdict": FULL, "date": "2026-10-01T10:00:00+00:00", "report_digest": "1" * 64}
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, "1", f"audit_{name}", value)
    keep(root, audit(QUICK, True))
    assert shown() == FULL
    assert [one.verdict for one in list_audits(get_version(1))] == [FULL, QUICK]


def test_the_audits_of_a_version_are_listed_with_the_one_that_is_shown(root: Path) -> None:
    runner = CliRunner(env={"COLUMNS": "200"})
    assert "was never audited" in runner.invoke(app, ["audits", "1"]).output
    keep(root, audit(FULL))
    keep(root, audit(QUICK, True, 5))
    said = runner.invoke(app, ["audits", "1"]).output
    assert said.count("Ann <ann@localhost>") == 2
    assert f"shown as its verdict: {FULL}" in said
    assert said.index(FULL) < said.index(QUICK)


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"date": "\x1b[2J"})])
def test_a_record_that_was_changed_is_named(root: Path, text: str) -> None:
    MlflowClient().set_model_version_tag(MODEL, "1", "audit.x", text)
    with pytest.raises(UserError, match=r"the tag audit\.x of version 1 is no record of an audit"):
        list_audits(get_version(1))


def test_a_report_that_cannot_be_kept_is_one_sentence(root: Path) -> None:
    (root / "artifacts").mkdir(exist_ok=True)
    (root / "artifacts" / str(get_version(1).run_id)).write_text("in the way")
    with pytest.raises(UserError, match="the report could not be kept: "):
        keep(root, audit(FULL))
    assert list_audits(get_version(1)) == []
    assert "audit_verdict" not in get_version(1).tags


def test_a_record_says_whether_it_judged() -> None:
    fields = dict.fromkeys(Audited.model_fields, "x")
    made = [
        Audited.model_validate({**fields, "quick": quick, "verdict": verdict})
        for quick, verdict in ((False, FULL), (False, NOT_JUDGED), (True, QUICK), (True, ANOTHER))
    ]
    assert [one.judged for one in made] == [True, False, False, False]
