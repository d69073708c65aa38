"""What the checks of an audit find, in sentences that name the culprit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flows.audit.record import Check, Finding, Step


@dataclass(frozen=True)
class CheckResult:
    """A check that was made, and what it found; nothing if all was as it should be."""

    step: Step
    what: str  # what is so if the check passes
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_record(self) -> Check:
        """The check as the report lists it."""
        return Check(step=self.step, what=self.what, passed=self.passed)


def check(step: Step, what: str, found: Iterable[Finding]) -> CheckResult:
    """The result of a check.

    Args:
        step: of the audit, which its findings get.
        what: what is so if the check passes.
        found: by the check.
    """
    findings = [finding.model_copy(update={"step": step}) for finding in found]
    return CheckResult(step, what, findings)


def collect_findings(results: Iterable[CheckResult]) -> list[Finding]:
    """The findings of all these checks."""
    return [finding for result in results for finding in result.findings]


def wrong(sentence: str) -> Finding:
    """A record that contradicts another."""
    return Finding(step="provenance", kind="wrong", sentence=sentence)


def missing(sentence: str) -> Finding:
    """A record that is needed to judge, and is not there."""
    return Finding(step="provenance", kind="missing", sentence=sentence)


def unsound(sentence: str) -> Finding:
    """A reason not to trust a model that can be reproduced."""
    return Finding(step="provenance", kind="unsound", sentence=sentence)


def note(sentence: str) -> Finding:
    """What a reader should know, and what changes no verdict."""
    return Finding(step="provenance", kind="note", sentence=sentence)
