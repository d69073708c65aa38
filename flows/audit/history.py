"""Every audit of a version is kept: who made it, when, where, how, and with which verdict.

    mammoflow audits 3

The report goes to the artifacts of the version's run, and a record to a tag of the version. Each
record has a tag of its own, so no audit replaces another. The tags `audit_verdict`, `audit_date`
and so on show the newest audit that ran everything again and could judge. An audit that was quick,
could not judge, or had too few test women to tell, is shown only if there is no other.
"""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict

from flows.audit.page import render
from flows.audit.record import EXIT_STATUS, Audit
from flows.evidence.ledger import publish_ledger
from flows.evidence.signing import sign_audit
from flows.evidence.statements import AuditResult, hash_text
from flows.processes.checked import Readable, parse_record
from flows.snapshots.environment import Environment
from flows.tracking.aliases import identify_person
from flows.tracking.names import MODEL
from flows.tracking.registry import FAULTS, describe_error, get_version, read_run_id
from mammo.base.errors import UserError

_PREFIX = "audit."


class Audited(BaseModel):
    """The record of one audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: Readable  # ISO 8601, UTC
    who: Readable  # by git's identity
    where: Readable  # the machine's name
    environment: Readable
    quick: bool  # whether the re-run was left out
    verdict: Readable
    standard: Readable  # empty if there was none
    snapshot_digest: Readable
    report: Readable  # its folder among the artifacts of the version's run
    report_digest: Readable  # SHA-256 of its audit.json

    @property
    def judged(self) -> bool:
        """Whether everything was run again, and that showed the one or the other."""
        return not self.quick and self.verdict not in ("cannot be judged", "too small to tell")


def keep(root: Path, record: Audit) -> str:
    """Write report, record and tags of an audit to MLflow; return the report's folder.

    Args:
        root: the auditor's clone.
        record: the audit.

    Raises:
        UserError: in MLflow's own words if it does not accept them.
    """
    folder = f"{_name_folder(record.date)}-{secrets.token_hex(3)}"
    text = record.model_dump_json(indent=2) + "\n"
    made = Audited(
        date=record.date,
        who=_read_auditor(root),
        where=socket.gethostname(),
        environment=_summarise(record.environment_now),
        quick=record.quick,
        verdict=record.verdict,
        standard=record.standard.name if record.standard else "",
        snapshot_digest=record.snapshot_digest or "",
        report=folder,
        report_digest=hash_text(text),
    )
    number, client = str(record.version), MlflowClient()
    name = f"{_PREFIX}{folder.removeprefix('audits/')}"
    try:
        run = read_run_id(get_version(record.version))
        client.log_text(run, render(record), f"{folder}/index.html")
        client.log_text(run, text, f"{folder}/audit.json")
        client.set_model_version_tag(MODEL, number, name, made.model_dump_json())
        # Of all audits, since others may have audited the version meanwhile.
        for key, value in _choose_shown(list_audits(get_version(record.version))).items():
            client.set_model_version_tag(MODEL, number, key, value)
        signed = sign_audit(
            root,
            get_version(record.version),
            AuditResult(
                date=record.date,
                passed=EXIT_STATUS[record.verdict] == 0,
                verdict=record.verdict,
                standard=made.standard,
                report=made.report_digest,
            ),
        )
        if signed is not None:
            publish_ledger(root)  # an auditor may not be allowed to: MLflow has the line, too
    except (*FAULTS, OSError) as error:
        said = describe_error(error) if isinstance(error, MlflowException) else str(error)
        raise UserError(f"the report could not be kept: {said}") from None
    return folder


def list_audits(audited: ModelVersion) -> list[Audited]:
    """The audits of a version, the oldest first.

    Raises:
        UserError: if a record cannot be read: somebody has changed it.
    """
    found = []
    for name, text in audited.tags.items():
        if name.startswith(_PREFIX):
            what = f"the tag {name} of version {audited.version} is no record of an audit"
            found.append(parse_record(Audited, text, what, "restore the record"))
    before = _read_shown_audit(audited.tags)
    if before is not None and before.report_digest not in {one.report_digest for one in found}:
        found.append(before)
    return sorted(found, key=lambda audit: (audit.date, audit.report))


def _read_shown_audit(tags: Mapping[str, str]) -> Audited | None:
    """The audit that the version's tags show; the first audits left no other record."""
    if "audit_verdict" not in tags:
        return None
    date = tags.get("audit_date", "")
    return Audited(
        date=date,
        who="",
        where="",
        environment=tags.get("audit_environment", ""),
        quick=tags["audit_verdict"].startswith("records agree"),
        verdict=tags["audit_verdict"],
        standard=tags.get("audit_standard", ""),
        snapshot_digest=tags.get("audit_snapshot_digest", ""),
        report=_name_folder(date),
        report_digest=tags.get("audit_report_digest", ""),
    )


def _name_folder(date: str) -> str:
    """The folder of an audit's report, or the beginning of its name, by the audit's date."""
    return f"audits/{date.replace(':', '').removesuffix('+0000')}"


def _choose_shown(audits: Sequence[Audited]) -> dict[str, str]:
    """What the version's tags show of its audits."""
    chosen = ([audit for audit in audits if audit.judged] or list(audits))[-1]
    return {
        "audit_verdict": chosen.verdict,
        "audit_date": chosen.date,
        "audit_standard": chosen.standard,
        "audit_environment": chosen.environment,
        "audit_snapshot_digest": chosen.snapshot_digest,
        "audit_report_digest": chosen.report_digest,
    }


def _read_auditor(root: Path) -> str:
    try:
        return identify_person(root)
    except UserError:
        return "unknown to git"


def _summarise(found: Environment) -> str:
    gpus = ", ".join(found.gpus) or "no GPU"
    return f"Python {found.python}, {found.processor}, {gpus}, {os.uname().sysname}"
