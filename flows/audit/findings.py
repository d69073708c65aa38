"""What an audit gathers: checks, and findings as sentences that name the culprit."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flows.audit.record import Check, Finding


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
