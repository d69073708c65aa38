"""What may change between versions, and by which rules: of the snapshot's plan, or its settings.

A version from before there was a plan has its policy in params.yaml, and nothing says what may
change. The files are read as plain YAML: the version's own code has validated them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from mammo.assurance.plan import PLAN_FILE


@dataclass(frozen=True)
class ChangePlan:
    """The rules that a version was made and judged under."""

    source: str | None  # the file that names the policy; None if none does
    policy: Mapping[str, Any]
    params: tuple[tuple[str, str], ...]  # settings that may change, and to what
    data: str | None  # whether the data may change, in words
    code: tuple[str, ...]  # folders and files that may change
    looks: Mapping[str, Any]  # at one set of test women
    reference: Mapping[str, Any]  # that all are held against besides the champion
    unread: Mapping[str, Any]  # what an image counts that a model cannot read

    @property
    def limits_changes(self) -> bool:
        """Whether it says what may change."""
        return self.data is not None


NONE = ChangePlan(None, {}, (), None, (), {}, {}, {})
"""Where there is no record at all."""


def read_change_plan(snapshot: Snapshot | None) -> ChangePlan:
    """The plan of a snapshot, or what there was before plans."""
    files = snapshot.files if snapshot is not None else {}
    for source in (PLAN_FILE, PARAMS_FILE):
        content = yaml.safe_load(files.get(source, "")) or {}
        if "policy" in content:
            break
    else:
        return NONE
    changes = content.get("changes") or {}
    return ChangePlan(
        source=source,
        policy=content["policy"],
        params=tuple(_name_params(changes.get("params"))),
        data=_name_data(changes.get("data")) if changes else None,
        code=tuple(_name_code(changes.get("code"))),
        looks=content.get("looks") or {},
        reference=content.get("reference") or {},
        unread=content.get("unread") or {},
    )


def _name_params(permitted: Any) -> list[tuple[str, str]]:
    if permitted == "all":
        return [("every setting", "any value that its range in the code allows")]
    return [(name, _name_values(rule)) for name, rule in sorted((permitted or {}).items())]


def _name_values(rule: Any) -> str:
    if not isinstance(rule, Mapping):
        return "any value" if rule == "any" else str(rule)
    if "values" in rule:
        return "one of " + ", ".join(str(value) for value in rule["values"])
    return f"from {rule.get('low')} to {rule.get('high')}"


def _name_data(rule: Any) -> str:
    return {
        "all": "the data may change in any way",
        "grow": "data may be added; every image and label that was there stays",
        "none": "the data must stay as they are",
    }.get(str(rule), str(rule))


def _name_code(rule: Any) -> list[str]:
    return ["all code"] if rule == "all" else [str(part) for part in rule or []]
