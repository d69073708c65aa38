"""A look is counted once, before the scores, and none is given that the plan does not allow."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from prefect.logging import disable_run_logger
from typer.testing import CliRunner

from flows.cli.app import app
from flows.pipeline.graph import Meta, Stage
from flows.pipeline.lock_and_cache import hash_files
from flows.processes.run_git import git
from flows.promotion import budget
from flows.promotion.budget import (
    Look,
    NoLookLeftError,
    find_next_look,
    find_other_rules,
    hash_women,
    list_looks,
    take_look,
)
from flows.promotion.women import Women
from flows.retraining.run_stages import bring_up_to_date
from flows.snapshots.snapshot import Snapshot, capture
from flows.tracking import registry
from mammo.assurance.plan import Looks
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.cached_data import put_data, table
from tests.support.judged import plan
from tests.support.signed_project import make_repository
from tests.support.small_project import store

PLAN = Looks(number=3, error=0.15, spend="equal", renew=0.5)
WHOLE = plan(looks=PLAN.model_dump())


def snapshot_of(root: Path, weights: str, data: str, **settings: object) -> Snapshot:
    """A snapshot whose networks and data are these, with the data's table in DVC's cache."""
    found = capture(root)
    lock = yaml.safe_load(found.files["dvc.lock"])
    path = "outputs/train_classifier/weights.safetensors"
    name = hash_files({"x": weights.ljust(32, "0")}).removesuffix(".dir")
    lock["stages"]["train_classifier"]["outs"] = [{"path": path, "md5": name}]
    params = {**yaml.safe_load(found.files["params.yaml"]), **settings}
    files = {
        "dvc.lock": yaml.safe_dump(lock),
        "data.dvc": put_data(root, {"train.csv": data}),
        "params.yaml": yaml.safe_dump(params),
    }
    return Snapshot(found.commit, {**found.files, **files})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("looks") / "project"
    make_repository(root)
    (root / "plan.yaml").write_bytes((ROOT / "plan.yaml").read_bytes())
    store(root)
    return root


@pytest.fixture
def root(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, without a look."""
    monkeypatch.chdir(repository)
    store(repository)
    yield repository
    experiment = registry.open_store(repository)
    for name in MlflowClient().get_experiment(experiment).tags:
        if name.startswith("look"):
            MlflowClient().delete_experiment_tag(experiment, name)


def look_at(root: Path, weights: str, data: str, **settings: object) -> Look:
    return take_look(root, snapshot_of(root, weights, data, **settings), WHOLE, print)


def test_the_same_model_on_the_same_women_is_one_look_however_often(root: Path) -> None:
    first = look_at(root, "a", table(30))
    assert (first.set, first.number) == (1, 1)
    assert first.confidence == pytest.approx(0.95)
    assert look_at(root, "a", table(30)) == first
    # What no predictor reads makes no other model, nor does a name for the workers' pool.
    assert look_at(root, "a", table(30), prediction_pool="gpu", audit={}) == first
    assert look_at(root, "b", table(30)).number == 2
    assert look_at(root, "b", table(30), threads=3).number == 3
    assert [look.number for look in list_looks(root)] == [1, 2, 3]


def test_other_labels_are_another_question_at_the_same_women(root: Path) -> None:
    one, other = look_at(root, "a", table(30)), look_at(root, "a", table(30, sick=4))
    assert one.test_women != other.test_women
    assert (other.set, other.number) == (1, 2)


def test_when_all_are_taken_there_is_none_left_and_nothing_is_recorded(root: Path) -> None:
    for weights in "abc":
        look_at(root, weights, table(30))
    with pytest.raises(NoLookLeftError) as told:
        look_at(root, "d", table(30))
    women = list_looks(root)[0].women
    needed = -(-women // 2)
    assert f"at set 1 of test women ({women} women)" in str(told.value)
    assert f"all 3 that looks.number of plan.yaml allows are taken; {needed} more" in str(
        told.value
    )
    assert len(list_looks(root)) == 3
    assert look_at(root, "b", table(30)).number == 2  # it was counted, and may be asked again


def test_enough_new_women_open_the_next_set(root: Path) -> None:
    for weights in "abc":
        look_at(root, weights, table(30))
    with pytest.raises(NoLookLeftError):
        look_at(root, "d", table(32))
    found = look_at(root, "d", table(90))
    assert (found.set, found.number) == (2, 1)
    # Back to the old data: those women are known, so it is a look at the set that is open now.
    assert look_at(root, "e", table(30)).set == 2


def made(number: int, of_set: int, women: str, error: float = 0.05) -> Look:
    return Look(f"{number}", women, of_set, number, error, 10, "2026-11-27T10:00:00+00:00")


def test_another_plan_buys_no_look_at_women_whose_error_is_spent() -> None:
    old = Women(tuple(map(str, range(10))), "old")
    known = {"w": hash_women(old.ids)}
    taken = [made(number, 1, "w") for number in (1, 2, 3)]
    longer = PLAN.model_copy(update={"number": 30})
    with pytest.raises(NoLookLeftError, match=r"have spent 0.15 of the error of 0.15"):
        find_next_look(taken, known, "m", old, longer)
    assert (
        find_next_look(taken, known, "m", old, longer.model_copy(update={"error": 0.3})).number == 4
    )


def test_sets_share_the_error_and_none_is_opened_beyond_their_number() -> None:
    two = PLAN.model_copy(update={"sets": 2})
    everybody = {"w": hash_women([str(x) for x in range(10)]), "v": hash_women(["x"] * 15)}
    new = Women(tuple(f"n{x}" for x in range(10)), "new")
    second = find_next_look([made(1, 1, "w", 0.025)], everybody, "m", new, two)
    assert second.set == 2
    assert second.error == pytest.approx(0.15 / 2 / 3)
    taken = [made(1, 1, "w", 0.025), made(1, 2, "v", 0.025)]
    with pytest.raises(NoLookLeftError, match=r"looks.sets of plan.yaml allows 2 sets"):
        find_next_look(taken, everybody, "m", new, two)
    assert find_next_look(taken, everybody, "m", new, PLAN).set == 3  # a plan from before


def test_a_look_that_was_taken_under_other_rules_is_not_judged_by_these(root: Path) -> None:
    look = look_at(root, "a", table(30))
    assert find_other_rules(look, WHOLE) is None  # a retrain that was killed goes on
    assert find_other_rules(look, plan(approve="manual")) is None
    milder = find_other_rules(look, plan(sensitivity_floor=0.5))
    assert milder is not None
    assert "under other rules than plan.yaml has now" in milder
    assert find_other_rules(replace(look, rules=""), plan(sensitivity_floor=0.5)) is None


def test_women_who_come_one_by_one_open_a_set_once_they_are_many() -> None:
    taken = [made(1, 1, "first"), made(2, 1, "second")]
    known = {
        "first": hash_women([str(x) for x in range(10)]),
        "second": hash_women([str(x) for x in range(14)]),
    }
    for count, of_set in ((14, 1), (15, 2)):
        women = Women(tuple(str(x) for x in range(count)), f"{count}")
        assert find_next_look(taken, known, "m", women, PLAN).set == of_set


def test_two_clones_at_the_same_moment_take_two_looks_and_never_one_too_many(root: Path) -> None:
    snapshots = [snapshot_of(root, weights, table(30)) for weights in "abcdef"]
    results: list[object] = []

    def work(snapshot: Snapshot) -> None:
        try:
            results.append(take_look(root, snapshot, WHOLE, lambda _: None).number)
        except NoLookLeftError:
            results.append("none")

    # The file's lock is of a clone: without it these are as many clones.
    threads = [threading.Thread(target=work, args=(one,)) for one in snapshots]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "hold_in_clone", lambda *_: nullcontext())
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(map(str, results)) == ["1", "2", "3", "none", "none", "none"]
    assert [look.number for look in list_looks(root)] == [1, 2, 3]


def test_the_registry_names_no_woman(root: Path) -> None:
    look_at(root, "a", table(30))
    tags = MlflowClient().get_experiment(registry.open_store(root)).tags
    said = "".join(f"{name}{text}" for name, text in tags.items() if name.startswith("look"))
    assert "w0" not in said


def test_a_record_that_was_changed_is_named(root: Path) -> None:
    look_at(root, "a", table(30))
    experiment = registry.open_store(root)
    [name] = [x for x in MlflowClient().get_experiment(experiment).tags if x.startswith("look.")]
    MlflowClient().set_experiment_tag(experiment, name, "{}")
    with pytest.raises(UserError, match=f"the tag {name} of the experiment"):
        look_at(root, "b", table(30))


def test_the_looks_are_listed(root: Path) -> None:
    look_at(root, "a", table(30))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["looks"])
    assert result.exit_code == 0, result.output
    assert "1 of 10 looks at this set are taken, and 0.05 of the error of 0.25 is spent" in (
        " ".join(result.output.split())
    )


def scoring(root: Path) -> Stage:
    path = Path("outputs/evaluate/predictions.csv")
    return Stage("evaluate", (), Meta(), (), (), (), (), (path,), False)


def test_the_look_is_counted_before_the_stage_that_scores_and_without_one_it_does_not_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that is killed: the record is there before anything was computed."""
    seen: list[int] = []

    def start_stage(*_: object) -> str:
        seen.append(len(list_looks(root)))
        raise UserError("killed")

    monkeypatch.setattr("flows.retraining.run_stages.runs.start_stage", start_stage)
    experiment = registry.open_store(root)

    def begin(weights: str, stage: Stage) -> None:
        snapshot = snapshot_of(root, weights, table(30))
        monkeypatch.setattr("flows.retraining.run_stages.capture", lambda _: snapshot)
        with disable_run_logger():
            bring_up_to_date.fn(stage, root, experiment, "parent", False, WHOLE)

    for weights in "aabc":
        with pytest.raises(UserError, match="killed"):
            begin(weights, scoring(root))
    assert seen == [1, 1, 2, 3]
    with pytest.raises(NoLookLeftError):
        begin("d", scoring(root))
    assert seen == [1, 1, 2, 3]  # it was not begun
    with pytest.raises(UserError, match="killed"):
        begin("d", replace(scoring(root), outs=()))  # another stage takes none


def test_a_table_that_nobody_has_is_named(root: Path) -> None:
    found = capture(root)  # its data.dvc names what no cache has
    with pytest.raises(UserError, match=r"DVC's cache lacks data/train.csv"):
        take_look(root, found, WHOLE, print)
    assert git(root, "status", "--porcelain", "--", "dvc.lock") == ""
