"""What an audit gathers: checks, and findings as sentences that name the culprit."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.audit_record import Check, Finding

SHOWN = 5  # culprits named in one sentence


@dataclass
class Evidence:
    """What has been looked at and what was found, as the audit goes on."""

    checks: list[Check] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def look(self, step: Any, what: str, found: Iterable[Finding]) -> bool:
        """Note a check with its findings; return whether there were none."""
        findings = [finding.model_copy(update={"step": step}) for finding in found]
        self.findings += findings
        self.checks.append(Check(step=step, what=what, passed=not findings))
        return not findings


def wrong(sentence: str) -> Finding:
    """A record that contradicts another."""
    return Finding(step="provenance", kind="wrong", sentence=sentence)


def missing(sentence: str) -> Finding:
    """A record that would be needed to judge."""
    return Finding(step="provenance", kind="missing", sentence=sentence)


def some(names: list[str]) -> str:
    """The first few of the culprits, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
