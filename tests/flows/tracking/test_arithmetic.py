"""Which arithmetic made the outs of a stage: this machine's, a worker's, or an older version's."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flows.pipeline.graph import StageOutcome
from flows.processes.follow import CommandError
from flows.snapshots import environment
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import arithmetic, registry
from flows.tracking.arithmetic import describe_origin, measure

LOCAL, REMOTE, OLD = ({"matrix product": name} for name in ("local", "remote", "old"))
MACHINE = environment.describe_environment()


def snapshot(**hashes: str) -> Snapshot:
    """One out a stage, with its hash, of which a digit tells enough."""
    stages = {name: {"outs": [{"path": name, "md5": digit * 32}]} for name, digit in hashes.items()}
    return Snapshot("", {"dvc.lock": yaml.safe_dump({"stages": stages})})


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "measure", lambda root: LOCAL)


def versions(monkeypatch: pytest.MonkeyPatch, *made: tuple[Snapshot, Environment | None]) -> None:
    """Put versions into the registry, the newest first."""
    monkeypatch.setattr(
        registry, "list_versions", lambda: [SimpleNamespace(of=pair) for pair in made]
    )
    monkeypatch.setattr(registry, "read_snapshot", lambda version: version.of[0])
    monkeypatch.setattr(registry, "read_environment", lambda version: version.of[1])


def made_by(families: Mapping[str, str], **elsewhere: Mapping[str, str]) -> Environment:
    return MACHINE.model_copy(update={"arithmetic": families, "elsewhere": elsewhere})


def test_what_ran_at_a_worker_is_told_from_what_ran_here() -> None:
    outcomes = [StageOutcome("cut", "ran"), StageOutcome("train", "ran", REMOTE)]
    found = describe_origin(Path(), snapshot(cut="1", train="2"), outcomes, print)
    assert found.arithmetic == LOCAL
    assert found.elsewhere == {"train": REMOTE}


def test_what_did_not_run_is_of_the_newest_version_with_the_same_outs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions(
        monkeypatch,
        (snapshot(cut="1", train="0", score="9"), made_by(LOCAL)),
        (snapshot(cut="0", train="2", score="9"), made_by(OLD, train=REMOTE)),
        (snapshot(cut="0", train="2", score="3"), made_by(OLD)),
    )
    outcomes = [StageOutcome(name, "cached") for name in ("cut", "train", "score")]
    found = describe_origin(Path(), snapshot(cut="1", train="2", score="3"), outcomes, print)
    assert found.elsewhere == {"train": REMOTE, "score": OLD}  # and cut is of a machine like this


@pytest.mark.parametrize("older", [[], [(snapshot(train="2"), None)]])
def test_of_outs_from_a_cache_nothing_is_known_without_a_record(
    monkeypatch: pytest.MonkeyPatch, older: list[tuple[Snapshot, Environment | None]]
) -> None:
    versions(monkeypatch, *older)
    found = describe_origin(
        Path(), snapshot(train="2"), [StageOutcome("train", "unchanged")], print
    )
    assert found.elsewhere == {"train": {}}


def test_damaged_records_of_a_version_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = Snapshot("", {"dvc.lock": "stages: []"})
    versions(monkeypatch, (damaged, made_by(OLD)), (snapshot(train="2"), made_by(REMOTE)))
    found = describe_origin(
        Path(), snapshot(train="2"), [StageOutcome("train", "unchanged")], print
    )
    assert found.elsewhere == {"train": REMOTE}


def test_a_measurement_that_fails_costs_no_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(root: Path) -> dict[str, str]:
        raise CommandError("no GPU answers")

    monkeypatch.setattr(arithmetic, "measure", fails)
    assert (
        describe_origin(Path(), snapshot(cut="1"), [StageOutcome("cut", "ran")], print).arithmetic
        == {}
    )
    assert "is not recorded: no GPU answers" in capsys.readouterr().out


def test_code_that_has_no_fingerprint_yet_measures_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path) == {}
