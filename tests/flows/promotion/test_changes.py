"""What the plan does not permit is named: by the gate's verdict, or that no look is left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from flows.processes.run_git import git
from flows.promotion.budget import list_looks
from flows.promotion.changes import find_outside, find_reference
from flows.promotion.flow import _look_and_judge, was_judged
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG
from flows.tracking.registry import get_version
from mammo.assurance.plan import AllowedChanges, Plan, Reference
from mammo.base.errors import UserError
from tests.support.cached_data import put_data, table
from tests.support.judged import plan
from tests.support.signed_project import WHO, make_repository, register
from tests.support.small_project import store

FIRST = Reference(version="first", average_precision=1.0, auroc=1.0)
IMAGE = "train_images/w000/0L.dcm"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Version 1 is of another seed, image and code than version 2, 0 from before there was a plan.

    The numbers are 1 (before the plan), 2 (the first one approved under it) and 3.
    """
    root = tmp_path_factory.mktemp("changes") / "project"
    make_repository(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        store(root)
        (root / "mammo").mkdir()
        (root / "mammo" / "science.py").write_text("ANSWER = 42\n")
        (root / "data.dvc").write_text(put_data(root, {"train.csv": table(30), IMAGE: "a picture"}))
        said = (root / "plan.yaml").read_text()
        (root / "plan.yaml").unlink()
        commit(root, "before the plan")
        register(root, "before the plan")
        (root / "plan.yaml").write_text(said)
        commit(root, "a plan")
        register(root, "the first")
        params = yaml.safe_load((root / "params.yaml").read_text())
        params |= {"seed": 21, "prediction_pool": "gpu"}
        params["classifier"]["learning_rate"] = 0.002
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        (root / "mammo" / "science.py").write_text("ANSWER = 43\n")
        (root / "data.dvc").write_text(
            put_data(root, {"train.csv": table(33), IMAGE: "another picture"})
        )
        commit(root, "changes")
        register(root, "the second")
        aliases.make_champion(1, WHO, "before the plan")
        aliases.make_champion(2, WHO, "the first under it")
        yield root


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", message)


def outside(root: Path, version: int = 3, **rules: Any) -> list[str]:
    whole = AllowedChanges.model_validate({"params": "all", "data": "all", "code": "all", **rules})
    return find_outside(root, get_version(2), get_version(version), whole, print)


def test_the_reference_is_the_first_one_approved_under_a_plan(root: Path) -> None:
    assert int(getattr(find_reference(FIRST), "version", 0)) == 2
    assert int(getattr(find_reference(FIRST.model_copy(update={"version": 3})), "version", 0)) == 3
    with pytest.raises(UserError, match="version 99, is not in the registry"):
        find_reference(FIRST.model_copy(update={"version": 99}))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({}, []),
        ({"params": {"seed": "any", "classifier": "any"}}, []),
        ({"params": {"seed": "any"}}, ["classifier.learning_rate = 0.002 was 0.0004"]),
        ({"params": {"seed": "any", "classifier.learning_rate": {"low": 0.0001, "high": 0.001}}},
         ["classifier.learning_rate = 0.002 is not 0.0001 to 0.001"]),
        ({"code": []}, ["code changed: mammo/science.py"]),
        ({"code": ["stages", "mammo/dicom"]}, ["code changed: mammo/science.py"]),
        ({"code": ["mammo/"]}, []),
        ({"data": "none"}, ["the data, data/, are not the reference's"]),
        ({"data": "grow"},
         ["1 files of the data changed, and 0 are gone, of the 2 that were there"]),
    ],
)  # fmt: skip
def test_each_change_that_the_plan_does_not_permit_is_named(
    root: Path, rules: dict[str, Any], said: list[str]
) -> None:
    assert outside(root, **rules) == said
    assert outside(root, version=2, **rules) == []  # it is the reference itself


def judged(root: Path, rules: Plan) -> Any:
    with disable_run_logger():
        return _look_and_judge(root, get_version(2), get_version(3), rules)


def test_what_is_signed_of_changed_data_names_no_woman_and_no_image(root: Path) -> None:
    """The gate's sentence is signed as its reason, and a path of the data holds ids."""
    [said] = outside(root, data="grow")
    rows = [line.split(",") for line in table(33).splitlines()]
    at = [rows[0].index(name) for name in ("patient_id", "image_id")]
    words = set(said.replace(",", " ").split())
    assert not {row[column] for row in rows[1:] for column in at} & (words - {"0", "1", "2"})
    assert "train_images" not in said
    assert "w000" not in said


def test_a_version_outside_the_plan_is_not_looked_at_and_the_verdict_says_why(root: Path) -> None:
    strict = plan().model_copy(
        update={"changes": AllowedChanges(params={}, data="all", code="all")}
    )
    verdict = judged(root, strict)
    assert verdict.word == "outside the plan"
    assert "plan.yaml does not permit what changed since version 2: classifier.learning" in (
        verdict.sentence
    )
    assert 'mammoflow promote 3 --reason "..."' in verdict.sentence
    assert list_looks(root) == []
    tags = get_version(3).tags
    assert (tags["gate_verdict"], tags["gate_against"]) == ("outside the plan", "2")
    MlflowClient().set_model_version_tag(MODEL, "3", COMPLETION_TAG, "model/v3")
    assert was_judged(get_version(3))


def test_without_a_look_the_verdict_names_how_many_new_women_open_the_next_set(root: Path) -> None:
    few = plan(looks={"number": 1, "error": 0.05})
    with disable_run_logger():
        _look_and_judge(root, None, get_version(2), few)
    assert [look.number for look in list_looks(root)] == [1]
    verdict = judged(root, few)
    assert verdict.word == "no look left"
    assert "all 1 that looks.number of plan.yaml allows are taken" in verdict.sentence
    assert "more new test women open the next set" in verdict.sentence
    assert len(list_looks(root)) == 1
    assert get_version(3).tags["gate_verdict"] == "no look left"


def test_rules_that_were_chosen_after_a_look_are_not_applied_and_a_person_decides(
    root: Path,
) -> None:
    with disable_run_logger():
        verdict = _look_and_judge(root, None, get_version(2), plan(sensitivity_floor=0.9))
    assert verdict.word == "no look left"
    assert "under other rules than plan.yaml has now" in verdict.sentence
    assert 'mammoflow promote 2 --reason "..."' in verdict.sentence
    assert len(list_looks(root)) == 1


def test_a_reference_that_was_deleted_lets_nobody_walk_on(root: Path) -> None:
    """Nor does one that people rolled back from count as approved."""
    aliases.make_champion(3, WHO, "agreed")
    aliases.roll_back(WHO, "recalls too many", str)
    assert int(getattr(find_reference(FIRST), "version", 0)) == 2
    MlflowClient().delete_model_version(MODEL, "2")
    with pytest.raises(UserError, match="version 2, which was approved before others, was deleted"):
        find_reference(FIRST)
