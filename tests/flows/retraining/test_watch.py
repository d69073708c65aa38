"""When the watch starts a retrain, and when it leaves a snapshot alone.

On real servers both are at work in `tests/flows/servers/test_up.py`.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import mlflow
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running

from flows.processes.run_git import NoAnswerError
from flows.promotion import rescoring
from flows.promotion.budget import Look
from flows.promotion.flow import _digest_networks_of, _find_objection, needs_gate, was_judged
from flows.promotion.gate import PAGE, judge_first, record_uncompared
from flows.promotion.networks import predict_alike
from flows.promotion.rescoring import OwnPredictions
from flows.retraining import recovery
from flows.retraining.attempts import find_next_start, name_run
from flows.retraining.branch_watch import find_reason_to_wait
from flows.retraining.flow import _has_inputs_of
from flows.retraining.run_stages import _is_own_error
from flows.servers.deployments import REFUSED, SILENT
from flows.snapshots.snapshot import Snapshot
from flows.tracking import aliases, registry, runs
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG, NETWORKS
from flows.tracking.registry import CHALLENGER
from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.errors import UserError
from tests.support.judged import plan, women
from tests.support.small_project import store

LOOK = Look("a" * 64, "b" * 64, 1, 1, 0.05, 30, "2026-11-27T10:00:00+00:00")
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def attempts(*states: State) -> list[FlowRun]:
    return [
        FlowRun(id=uuid4(), flow_id=uuid4(), name=f"retrain {number}", state=state)
        for number, state in enumerate(states)
    ]


def at(minutes: float, state: State) -> State:
    """A state that was reached so long before NOW."""
    state.timestamp = NOW - timedelta(minutes=minutes)
    return state


@pytest.mark.parametrize(
    "end",
    [
        Crashed(message="the clone cannot go to the commit: not committed: .dvc/config"),
        Crashed(message="Process exited with status code: -9"),
        Failed(message="MLflow at http://there failed; once it is back, run this again"),
    ],
    ids=lambda end: end.message[:20],
)
def test_a_retrain_that_came_to_no_end_is_taken_up_by_the_next_watch(end: State) -> None:
    assert find_reason_to_wait(attempts(at(1, end)), NOW) is None


def test_without_an_attempt_there_is_nothing_to_wait_for() -> None:
    assert find_reason_to_wait([], NOW) is None


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([at(1, Crashed()), Running()], "the flow run retrain 1 is retraining it (Running)"),
        ([Pending(), at(1, Crashed())], "the flow run retrain 0 is retraining it (Pending)"),
        ([at(1, Completed())], "nothing new: the flow run retrain 0 has retrained it"),
        (
            [at(1, Failed(name=REFUSED, message="params.yaml: seed"))],
            "was refused, and another one would be, too: params.yaml: seed",
        ),
        ([at(1, Cancelled())], "somebody cancelled the flow run retrain 0"),
    ],
)
def test_what_is_under_way_done_refused_or_cancelled_is_left_alone(
    states: list[State], reason: str
) -> None:
    assert reason in str(find_reason_to_wait(attempts(*states), NOW))


def test_what_does_not_begin_again_and_again_is_tried_less_and_less_often() -> None:
    tries, now = [at(0, Crashed())], NOW
    for hours in (0, 0.25, 0.75, 1.75):
        earlier = attempts(*tries)
        due = find_next_start(earlier)
        assert due == now + timedelta(hours=hours)
        if hours:
            assert "did not finish" in str(find_reason_to_wait(earlier, due - timedelta(seconds=1)))
        assert find_reason_to_wait(earlier, due) is None
        now = due
        tries.append(Crashed(timestamp=now))


@given(st.integers(1, 49))
def test_what_does_not_begin_is_tried_once_a_day_at_least(count: int) -> None:
    earlier = attempts(*(at(0, Crashed()) for _ in range(count)))
    assert find_next_start(earlier) - NOW <= timedelta(days=1)


def test_the_rule_for_dead_runs_knows_the_state_of_a_refused_one() -> None:
    assert REFUSED in SILENT


def test_only_a_stage_that_ended_by_itself_would_end_so_again() -> None:
    said = "failed to reproduce 'slow': failed to run: bash slow.sh, exited with {}"
    assert _is_own_error(said.format(1))
    for killed in (-9, 137, -15):
        assert not _is_own_error(said.format(killed))
    assert not _is_own_error("error: the disk is full: free some of it\n" + said.format(1))
    assert not _is_own_error("run-stage/gpu ended as Crashed: Process exited with status code: -9")
    assert not _is_own_error(said.format(1) + "\n" + said.format(-9))


def test_a_retrain_with_other_settings_than_the_commits_is_no_retrain_of_the_commit() -> None:
    committed = Snapshot("0" * 40, {"params.yaml": "seed: 1\n", "data.dvc": "a", "dvc.lock": "a"})
    written = {**committed.files, "dvc.lock": "b"}  # by a retrain
    assert _has_inputs_of(Snapshot("0" * 40, written), committed)
    for name in ("params.yaml", "plan.yaml", "data.dvc"):
        assert not _has_inputs_of(Snapshot("0" * 40, {**committed.files, name: "b"}), committed)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (["watch", "snapshot 0123"], "retrain 4435b4e by the watch"),
        (["auto-scheduled"], "retrain 4435b4e by the nightly"),
        ([], "retrain 4435b4e by hand"),
        (None, "retrain 4435b4e by hand"),
    ],
)
def test_a_run_is_called_by_its_commit_and_who_asked_for_it(
    tags: list[str] | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.retraining.attempts.flow_run", SimpleNamespace(tags=tags))
    assert name_run("4435b4e" + "0" * 33) == name


@pytest.fixture
def root(empty_registry: Path) -> Path:
    return empty_registry


@pytest.fixture
def version(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A version that a retrain of the snapshot `d1` has registered."""
    monkeypatch.chdir(root)
    client = store(root)
    experiment = registry.open_store(root)
    snapshot = Snapshot("0" * 40, {})
    run = runs.start_retrain(experiment, snapshot, "workspace", "d1", "retrain 0000000")
    client.create_registered_model(MODEL)
    made = client.create_model_version(MODEL, source=str(root), run_id=run)
    aliases.move(CHALLENGER, int(made.version), aliases.AUTOMATIC, "registered by a retrain")
    yield int(made.version)
    client.delete_registered_model(MODEL)
    client.delete_run(run)


def found(root: Path) -> ModelVersion:
    [version] = runs.find_versions_of_commit(registry.open_store(root), "d1")
    return version


def test_a_snapshot_is_done_when_its_version_was_judged_not_when_its_retrain_began(
    root: Path, version: int
) -> None:
    assert runs.find_versions_of_commit(registry.open_store(root), "another") == []
    assert not was_judged(found(root))  # stopped while registering
    store(root).set_model_version_tag(MODEL, str(version), COMPLETION_TAG, "model/v1")
    assert not was_judged(found(root))  # stopped between registration and gate
    assert needs_gate(found(root))
    record_uncompared(found(root), None, "cannot be judged", plan(), "there is no cache")
    assert was_judged(found(root))
    assert not needs_gate(found(root))


def test_a_gate_that_was_stopped_before_the_alias_moved_is_not_done(
    root: Path, version: int
) -> None:
    store(root).set_model_version_tag(MODEL, str(version), COMPLETION_TAG, "model/v1")
    record_uncompared(found(root), None, "promote", plan(), "the floor is met")  # and then Ctrl-C
    assert (was_judged(found(root)), needs_gate(found(root))) == (False, True)

    old = store(root).create_model_version(MODEL, source=str(root))
    aliases.make_champion(int(old.version), "Ann", "the first")
    record_uncompared(found(root), int(old.version), "promote", plan(), "all is met")
    assert (was_judged(found(root)), needs_gate(found(root))) == (False, True)
    # Where people decide, that is the end of it; and so it is once the champion is another.
    manual = plan(approve="manual")
    record_uncompared(found(root), int(old.version), "promote", manual, "all is met")
    assert (was_judged(found(root)), needs_gate(found(root))) == (True, False)
    record_uncompared(found(root), int(old.version) + 1, "promote", plan(), "all is met")
    assert (was_judged(found(root)), needs_gate(found(root))) == (True, False)


def test_a_version_that_a_person_made_champion_is_judged(root: Path, version: int) -> None:
    store(root).set_model_version_tag(MODEL, str(version), COMPLETION_TAG, "model/v1")
    aliases.make_champion(version, "Ann", "I say so")
    assert was_judged(found(root))
    assert not needs_gate(found(root))


def test_a_remote_of_git_that_does_not_answer_is_no_verdict(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise NoAnswerError("git worktree did not end within 300 s")

    monkeypatch.setattr(rescoring, "read_own_predictions", silent)
    with pytest.raises(NoAnswerError):
        judge_first(root, found(root), plan(), LOOK, print)
    assert "gate_verdict" not in found(root).tags


def test_a_first_version_whose_floors_cannot_be_looked_at_stays_challenger(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise UserError("predictions.csv is missing in DVC's cache")

    monkeypatch.setattr(rescoring, "read_own_predictions", absent)
    verdict = judge_first(root, found(root), plan(), LOOK, print)
    assert verdict.word == "cannot be judged"
    assert "predictions.csv is missing" in found(root).tags["gate_sentence"]
    assert aliases.read_current() == {CHALLENGER: version}


def test_a_run_whose_id_has_no_form_gets_no_verdict(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    breasts = women(30, seed=1)
    monkeypatch.setattr(
        rescoring, "read_own_predictions", lambda *_: OwnPredictions(breasts, 60, 0)
    )
    forged = found(root)
    forged._run_id = "../../elsewhere"
    with pytest.raises(UserError, match="the run of version 1 in MLflow is"):
        judge_first(root, forged, plan(), LOOK, print)
    assert judge_first(root, found(root), plan(), LOOK, print).word == "promote"
    short = judge_first(root, found(root), plan(sensitivity_floor=1.0), LOOK, print)
    assert short.word == "refuse"
    assert "it may not be below 1.000" in short.sentence
    page = mlflow.artifacts.load_text(f"runs:/{found(root).run_id}/{PAGE}")
    assert "against no champion: refuse" in page


def test_test_breasts_of_one_class_are_no_verdict_either_way(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = women(30, seed=1).assign(target=0)
    monkeypatch.setattr(rescoring, "read_own_predictions", lambda *_: OwnPredictions(sick, 60, 0))
    verdict = judge_first(root, found(root), plan(), LOOK, print)
    assert (verdict.word, "of one class" in verdict.sentence) == ("cannot be judged", True)


def made_of(weights: str, commit: str = "3", crop: float = 0.3) -> Snapshot:
    """A snapshot whose detector is always the same, and whose classifier has these weights."""
    paths = [f"{folder}/{name}" for folder in NETWORKS.values() for name in NETWORK_FILES]
    listed = []
    for path in paths:
        content = weights if "classifier" in path else "always the same"
        listed.append({"path": path, "md5": hashlib.md5(content.encode()).hexdigest()})
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "x", "outs": listed}}}
    params = {"threads": 2, "crop": {"confidence": crop}, "policy": {"approve": commit}}
    files = {"dvc.lock": yaml.safe_dump(lock), "params.yaml": yaml.safe_dump(params)}
    return Snapshot(commit * 40, files)


def test_two_predictors_are_the_same_by_their_networks_and_the_settings_that_they_read() -> None:
    assert predict_alike(made_of("a"), made_of("a", commit="4"))
    assert not predict_alike(made_of("a"), made_of("b"))
    assert not predict_alike(made_of("a"), made_of("a", crop=0.4))
    empty = Snapshot("3" * 40, {"dvc.lock": "stages: {}\n", "params.yaml": "threads: 2\n"})
    assert not predict_alike(empty, empty)  # nothing is known of their networks


def test_the_gate_leaves_alone_what_people_went_back_from_and_its_very_weights(
    root: Path, version: int
) -> None:
    experiment = registry.open_store(root)
    numbers = [version]
    for weights in ("a", "b", "b", "c"):
        snapshot = made_of(weights)
        run = runs.start_retrain(experiment, snapshot)
        store(root).log_text(run, snapshot.to_json(), registry.SNAPSHOT_ARTIFACT)
        made = store(root).create_model_version(MODEL, source=str(root), run_id=run)
        numbers.append(int(made.version))
    _, good, bad, again, other = numbers
    aliases.make_champion(good, "Ann", "the first")
    aliases.make_champion(bad, "mammoflow", "the gate")
    assert _find_objection(registry.get_version(again)) is None
    aliases.roll_back("Bob", "recalls too many", _digest_networks_of)
    said = {number: _find_objection(registry.get_version(number)) for number in numbers}
    assert (said[good], said[other], said[version]) == (None, None, None)
    assert str(said[bad]).startswith("it was rolled back on")
    words = f"version {bad}, which has the same weights, was rolled back on"
    assert str(said[again]).startswith(words)
    assert "by Bob (recalls too many)" in str(said[again])
    aliases.make_champion(again, "Ann", "the viewer was wrong")  # a person may
    aliases.make_champion(bad, "Ann", "the viewer was wrong")
    assert _find_objection(registry.get_version(bad)) is None


SNAPSHOT = Snapshot("1" * 40, {"params.yaml": "seed: 1\n"})


@pytest.mark.parametrize("error", ["git did not end", "the remote is full"])
def test_a_half_registered_version_waits_where_its_completion_failed_for_now(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    said: list[str] = []
    half_registered(root, version, monkeypatch)

    def fails(*_: object) -> str:
        raise NoAnswerError(error)

    monkeypatch.setattr(recovery, "complete", fails)
    repair(root, said)
    assert said == [
        f"{MODEL} version {version} is half-registered, and stays so until the next retrain: "
        f"{error}"
    ]
    assert registry.find(version) is not None
    monkeypatch.setattr(recovery, "complete", lambda root, snapshot, number: "challenger")
    said.clear()
    repair(root, said)
    assert said == [f"{MODEL} version {version} was half-registered: completed it"]


def test_git_that_does_not_answer_does_not_say_that_a_commit_is_gone(
    root: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    half_registered(root, version, monkeypatch)

    def silent(*_: object) -> bool:
        raise NoAnswerError("git did not end")

    monkeypatch.setattr(recovery, "has_commit", silent)
    repair(root, said)
    assert registry.find(version) is not None
    assert "stays so until the next retrain" in said[0]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("find_snapshot", None, "has no snapshot"),
        ("has_commit", False, "git has no commit"),
        ("read_tag", Snapshot("2" * 40, {}), "for another snapshot"),
    ],
)
def test_a_half_registered_version_that_can_never_be_completed_is_removed(
    root: Path,
    version: int,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
    why: str,
) -> None:
    said: list[str] = []
    half_registered(root, version, monkeypatch)
    monkeypatch.setattr(recovery, name, lambda *_: value)
    repair(root, said)
    assert registry.find(version) is None
    assert why in said[0]


def test_a_version_whose_run_has_no_ids_form_is_nobodys_and_keeps_no_retrain_from_its_work(
    root: Path, version: int
) -> None:
    store(root).set_model_version_tag(MODEL, str(version), COMPLETION_TAG, "model/v1")
    made = MlflowClient().create_model_version(MODEL, source=str(root), run_id="../x y")
    said: list[str] = []
    repair(root, said)
    assert said == []
    assert registry.find(int(made.version)) is not None


def half_registered(root: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a half-registered version needs to be completed."""
    run = str(registry.get_version(version).run_id)
    store(root).log_text(run, SNAPSHOT.to_json(), registry.SNAPSHOT_ARTIFACT)
    monkeypatch.setattr(recovery, "has_commit", lambda *_: True)
    monkeypatch.setattr(recovery, "tag_exists", lambda *_: True)
    monkeypatch.setattr(recovery, "read_tag", lambda *_: SNAPSHOT)


def repair(root: Path, said: list[str]) -> None:
    recovery._finish_versions(MlflowClient(), root, "workspace", said.append)
