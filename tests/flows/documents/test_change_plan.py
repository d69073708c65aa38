"""What a version's plan says; and what was there before there were plans."""

import yaml

from flows.documents.change_plan import NONE, read_change_plan
from flows.snapshots.snapshot import Snapshot

POLICY = {"approve": "manual", "bootstrap": 2000}
PLAN = {
    "changes": {
        "params": {
            "classifier.learning_rate": {"low": 0.0001, "high": 0.001},
            "classifier.backbone": {"values": ["resnet18", "resnet50"]},
            "tune": "any",
        },
        "data": "grow",
        "code": ["mammo/classifier", "requirements.lock"],
    },
    "policy": POLICY,
    "unread": {"count": "lowest", "more": 0.02},
    "looks": {"number": 10, "error": 0.25, "spend": "equal", "renew": 0.5},
    "reference": {"version": "first", "auroc": 0.1},
}


def snapshot(**files: object) -> Snapshot:
    return Snapshot("0" * 40, {f"{name}.yaml": yaml.safe_dump(x) for name, x in files.items()})


def test_a_plan_names_what_may_change() -> None:
    found = read_change_plan(snapshot(plan=PLAN, params={"policy": {"approve": "automatic"}}))
    assert found.source == "plan.yaml"
    assert found.limits_changes
    assert found.policy == POLICY
    assert dict(found.params) == {
        "classifier.learning_rate": "from 0.0001 to 0.001",
        "classifier.backbone": "one of resnet18, resnet50",
        "tune": "any value",
    }
    assert found.data == "data may be added; every image and label that was there stays"
    assert found.code == ("mammo/classifier", "requirements.lock")
    assert found.looks["number"] == 10
    assert found.reference["version"] == "first"


def test_a_plan_may_permit_everything() -> None:
    everything = {"changes": {"params": "all", "data": "all", "code": "all"}, "policy": POLICY}
    found = read_change_plan(snapshot(plan=everything))
    assert [name for name, _ in found.params] == ["every setting"]
    assert (found.data, found.code) == ("the data may change in any way", ("all code",))


def test_before_there_were_plans_the_policy_stands_in_the_settings() -> None:
    found = read_change_plan(snapshot(params={"seed": 1, "policy": POLICY}))
    assert (found.source, found.policy) == ("params.yaml", POLICY)
    assert not found.limits_changes


def test_no_record_is_no_plan() -> None:
    assert read_change_plan(snapshot(params={"seed": 1})) == NONE
    assert read_change_plan(None) == NONE
