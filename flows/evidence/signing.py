"""What flows sign: each function adds one line to the ledger, and returns it.

If there is no key of a role that may sign it, it does nothing and returns None.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.evidence import statements
from flows.evidence.bom import BOM, keep_bom, read_locked_packages_of
from flows.evidence.keys import find_owner
from flows.evidence.ledger import add, publish_ledger, read_lines_for_adding
from flows.evidence.verify import (
    DOCUMENTS,
    EVALUATION,
    LATER,
    POLICY,
    PROVENANCE,
    ROLES,
    SUMMARY,
    WITH_BUILD,
    Line,
    digest_model,
    hash_folder,
)
from flows.pipeline.first_weights import copy_records, read_tracked_weights
from flows.snapshots.snapshot import Snapshot
from flows.tracking.names import MODEL
from flows.tracking.registry import (
    ENVIRONMENT_ARTIFACT,
    copy_model,
    read_artifact,
    read_environment,
    read_run_id,
    read_snapshot,
)
from mammo.assurance.plan import Plan
from mammo.base.errors import UserError
from mammo.base.settings import load_params

if TYPE_CHECKING:
    from mammo.assurance.promotion_rule import Decision

__all__ = [
    "describe_materials",
    "find_signed_documents",
    "sign_audit",
    "sign_decision",
    "sign_documents",
    "sign_evaluation",
    "sign_plan",
    "sign_version",
]


def sign_plan(root: Path, plan: Plan) -> Line | None:
    """Sign a plan, before anything is looked at; a plan that is in force is not signed again.

    Raises:
        UserError: if there is a key that cannot be used.
    """
    owner = find_owner(root, *ROLES[POLICY])
    if owner is None:
        return None
    digest = statements.hash_plan(plan)
    lines = [line for line in read_lines_for_adding(root) if line.kind == POLICY]
    if lines and list(lines[-1].subject.values()) == [digest]:
        return lines[-1]
    said = statements.describe_plan(plan)
    line = add(root, owner, POLICY, {"policy": digest}, said, version=None)
    publish_ledger(root)  # no version has this line yet, so other clones find it nowhere else
    return line


def describe_materials(root: Path, version: ModelVersion) -> None:
    """Put the bill of materials of a version among the artifacts of its run, signed or not."""
    keep_bom(root, version, _hash_model(version))


def sign_version(root: Path, version: ModelVersion, *, later: bool = False) -> Line | None:
    """Sign the provenance of a version.

    Args:
        root: the clone.
        version: registered.
        later: whether it was registered before, unsigned.

    Raises:
        UserError: if it was signed before, its records cannot be read, or a key cannot be used.
    """
    owner = find_owner(root, *ROLES[PROVENANCE])
    if owner is None:
        return None
    number, lines = int(version.version), read_lines_for_adding(root)
    if _find(lines, PROVENANCE, number) is not None:
        raise UserError(f"version {number} has a signed provenance already")
    snapshot, text = (
        read_snapshot(version),
        read_artifact(read_run_id(version), ENVIRONMENT_ARTIFACT),
    )
    environment = read_environment(version)
    files = _hash_model(version)
    policy = next((line for line in reversed(lines) if line.kind == POLICY), None)
    said = statements.describe_build(
        snapshot,
        locked_packages=read_locked_packages_of(root, snapshot),
        weights=_read_weights(root, snapshot),
        environment=(text, environment) if text is not None and environment is not None else None,
        run=MlflowClient().get_run(read_run_id(version)),
        builder=owner.key.name,
        kept={BOM: statements.hash_text(keep_bom(root, version, files))},
    )
    return add(
        root,
        owner,
        PROVENANCE,
        files,
        said,
        version=number,
        policy=policy.digest if policy is not None and not later else None,
        signed=LATER if later else WITH_BUILD,
    )


def sign_evaluation(
    root: Path,
    version: ModelVersion,
    champion: int | None,
    plan: Plan,
    decision: "Decision",
    verdict: str,
    look: Mapping[str, Any],
) -> Line | None:
    """Sign what the gate found, with the plan that was signed before it looked."""
    owner = find_owner(root, *ROLES[EVALUATION])
    if owner is None:
        return None
    lines = read_lines_for_adding(root)
    made, digest = _find(lines, PROVENANCE, int(version.version)), statements.hash_plan(plan)
    in_force = [line for line in lines if made is not None and line.digest == made.policy]
    if not in_force or list(in_force[0].subject.values()) != [digest]:
        signed = sign_plan(root, plan)  # another one than when the version was made
        in_force = [signed] if signed is not None else []
        lines = read_lines_for_adding(root)
    return add(
        root,
        owner,
        EVALUATION,
        _name_model(version, lines),
        statements.describe_evaluation(decision, verdict, champion, plan, look),
        version=int(version.version),
        policy=in_force[0].digest if in_force else None,
    )


def find_signed_documents(root: Path, version: ModelVersion) -> Line | None:
    """The last line about the documents of a version, or None if nobody signed them."""
    return _find(read_lines_for_adding(root), DOCUMENTS, int(version.version))


def sign_documents(
    root: Path,
    version: ModelVersion,
    files: Mapping[str, str],
    snapshot: Snapshot | None,
    to_be_written: Mapping[str, int],
) -> Line | None:
    """Sign the documents of a version; those that are signed already are not signed again.

    Args:
        root: the clone.
        version: that they are about.
        files: SHA-256 of each, by its name.
        snapshot: of the version, if it has one.
        to_be_written: for each document, how many passages its provider has not written.

    Raises:
        UserError: if there is a key that cannot be used.
    """
    owner = find_owner(root, *ROLES[DOCUMENTS])
    if owner is None:
        return None
    last = find_signed_documents(root, version)
    if last is not None and dict(last.subject) == dict(files):
        return last
    said = statements.describe_documents(snapshot, to_be_written)
    return add(root, owner, DOCUMENTS, files, said, version=int(version.version))


def sign_decision(
    root: Path,
    kind: str,
    version: ModelVersion,
    who: str,
    why: str,
    move: Sequence[int | None],
    verdict: str | None = None,
) -> Line | None:
    """Sign a promotion, refusal, approval or rollback.

    Args:
        root: the clone.
        kind: one of these words.
        version: that it is about: the one that became champion, or was refused.
        who: decided.
        why: the reason.
        move: the champion before, and after it.
        verdict: the gate's word, if it said one.
    """
    owner = find_owner(root, *ROLES[kind])
    if owner is None:
        return None
    number, lines = int(version.version), read_lines_for_adding(root)
    judged = _find(lines, EVALUATION, number)
    seen = (judged.digest, judged.predicate.get("look")) if judged is not None else None
    if kind == "promotion" and judged is None:
        return None  # nobody signed the numbers that it rests on
    before, now = move
    said = statements.describe_decision(who, why, before, now, seen, verdict)
    return add(root, owner, kind, _name_model(version, lines), said, version=number)


def sign_audit(
    root: Path,
    version: ModelVersion,
    result: statements.AuditResult,
) -> Line | None:
    """Sign the verdict of an audit with the auditor's key.

    Args:
        root: the auditor's clone.
        version: that was audited.
        result: of the audit.
    """
    owner = find_owner(root, *ROLES[SUMMARY])
    if owner is None:
        return None
    number, lines = int(version.version), read_lines_for_adding(root)
    made = _find(lines, PROVENANCE, number)
    said = statements.describe_audit(
        owner.key.name,
        number,
        result,
        bounds=load_params(root / "params.yaml").audit.model_dump(mode="json"),
        inputs=[made.digest] if made is not None else [],
    )
    return add(root, owner, SUMMARY, _name_model(version, lines), said, version=number)


def _read_weights(root: Path, snapshot: Snapshot) -> dict[str, str]:
    """The first weights of a snapshot's commit: path and DVC's hash of each."""
    with copy_records(root, snapshot.commit) as records:
        return read_tracked_weights(records)


def _name_model(version: ModelVersion, lines: Sequence[Line]) -> dict[str, str]:
    """The subject of a line about a model: its name and one digest of all its files."""
    made = _find(lines, PROVENANCE, int(version.version))
    name = f"{MODEL} version {version.version}"
    if made is not None:
        return {name: digest_model(made.subject)}
    return {name: digest_model(_hash_model(version))}


def _hash_model(version: ModelVersion) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as scratch:
        return hash_folder(copy_model(version, Path(scratch)))


def _find(lines: Sequence[Line], kind: str, version: int) -> Line | None:
    """The last line of a kind about a version."""
    found = (line for line in reversed(lines) if (line.kind, line.version) == (kind, version))
    return next(found, None)
