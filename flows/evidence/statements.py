"""What is attested: the predicates of provenance, policy, evaluation, decision and audit verdict.

Pure functions: the same records give the same predicate. Times are those of the records; no clock,
no path and no name of a machine is in any of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml
from mlflow.entities import Run

from flows.evidence.verify import hash_bytes, write_canonical
from flows.pipeline.lock_and_cache import collect_outs, read_data_out, read_lock
from flows.snapshots.environment import Environment
from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from flows.tracking.names import MODEL
from mammo.assurance.plan import Plan

if TYPE_CHECKING:
    from mammo.assurance.promotion_rule import Decision

BUILD_TYPE = "urn:mammoflow:retrain:v1"


def hash_text(text: str) -> str:
    """SHA-256 of a text as UTF-8, as hex."""
    return hash_bytes(text.encode())


def hash_plan(plan: Plan) -> str:
    """The digest of a plan: SHA-256 of its canonical JSON."""
    return hash_bytes(write_canonical(plan.model_dump(mode="json")))


def describe_build(
    snapshot: Snapshot,
    *,
    locked_packages: str | None,
    weights: Mapping[str, str],
    environment: tuple[str, Environment] | None,
    run: Run,
    builder: str,
    kept: Mapping[str, str],
) -> dict[str, Any]:
    """The provenance of a version, as SLSA's version 1 has it.

    Args:
        snapshot: that the version was made from.
        locked_packages: the text of the commit's requirements.lock, if it has one.
        weights: the first weights, by path, with DVC's hashes.
        environment: that it was made in, and its text in MLflow; None if it was not recorded.
        run: of the retrain.
        builder: the name of the key that signs.
        kept: further files with their SHA-256, by their names in an export.
    """
    files = dict(snapshot.files)
    if locked_packages is not None:
        files["requirements.lock"] = locked_packages
    data, data_hash = read_data_out(snapshot)
    made = {"environment.json": hash_text(environment[0])} if environment is not None else {}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "model": MODEL,
                "params": yaml.safe_load(snapshot.files[PARAMS_FILE]),
                "snapshot": snapshot.digest,
            },
            "internalParameters": {
                "environment": None
                if environment is None
                else environment[1].model_dump(mode="json", exclude={"packages", "licences"})
            },
            "resolvedDependencies": [
                {"name": "commit", "digest": {"gitCommit": snapshot.commit}},
                *_name_files({name: hash_text(text) for name, text in files.items()}),
                *_name_objects({data: data_hash, **weights}),
            ],
        },
        "runDetails": {
            "builder": {"id": f"urn:mammoflow:builder:{builder}"},
            "metadata": _describe_run(run),
            "byproducts": [
                *_name_files({**made, **kept}),
                *_name_objects(collect_outs(read_lock(snapshot))),
            ],
        },
    }


def _describe_run(run: Run) -> dict[str, Any]:
    return {
        "invocationId": run.info.run_id,
        "startedOn": _write_milliseconds(run.info.start_time),
        "finishedOn": _write_milliseconds(run.info.end_time),
    }


def describe_plan(plan: Plan) -> dict[str, Any]:
    """A plan, word for word. Its key is that of the first ledgers, when it was the policy alone."""
    return {"policy": plan.model_dump(mode="json")}


def describe_evaluation(
    decision: "Decision", verdict: str, champion: int | None, plan: Plan, look: Mapping[str, Any]
) -> dict[str, Any]:
    """What the gate found: each condition with its numbers.

    Args:
        decision: of the gate.
        verdict: its word.
        champion: the version that it was compared with, if there was one.
        plan: the conditions.
        look: which look it was, at which test women, and the error that it spent.
    """
    return {
        "verdict": verdict,
        "champion": champion,
        "policy_sha256": hash_plan(plan),
        "look": dict(look),
        "cases": {
            "women": decision.women,
            "breasts": decision.breasts,
            "positives": decision.positives,
        },
        "conditions": [replace_nan(asdict(reason)) for reason in decision.reasons],
        "not_judged": list(decision.not_judged),
        "resamples_skipped": decision.resamples_skipped,
    }


def describe_documents(
    snapshot: Snapshot | None, to_be_written: Mapping[str, int]
) -> dict[str, Any]:
    """Which documents there are, and of what.

    Args:
        snapshot: of the version, if it has one.
        to_be_written: for each document, how many passages its provider has not written.
    """
    digest = snapshot.digest if snapshot is not None else None
    return {"snapshot": digest, "to_be_written_by_the_provider": dict(to_be_written)}


def describe_decision(
    who: str,
    why: str,
    before: int | None,
    now: int | None,
    evaluation: tuple[str, Any] | None,
    verdict: str | None,
) -> dict[str, Any]:
    """A promotion, refusal, approval or rollback.

    Args:
        who: decided: a person by git's identity, or the gate.
        why: the reason.
        before: the champion before.
        now: the champion after it.
        evaluation: the digest of the line with the gate's numbers, and its look; None if there is
            none that is signed.
        verdict: the gate's word, if it said one.
    """
    return {
        "who": who,
        "verdict": verdict,
        "why": why,
        "from": before,
        "to": now,
        "evaluation": evaluation[0] if evaluation is not None else None,
        "look": evaluation[1] if evaluation is not None else None,
    }


@dataclass(frozen=True)
class AuditResult:
    """How an audit ended."""

    date: str  # of the audit, ISO 8601, UTC
    passed: bool  # whether it ended with status 0
    verdict: str  # its words
    standard: str  # bit for bit, equivalence, or nothing
    report: str  # SHA-256 of its audit.json


def describe_audit(
    auditor: str,
    version: int,
    result: AuditResult,
    bounds: Mapping[str, Any],
    inputs: Sequence[str],
) -> dict[str, Any]:
    """An audit's verdict, as SLSA's verification summary has it.

    Args:
        auditor: the name of the key that signs.
        version: that was audited.
        result: of the audit.
        bounds: of the comparison where bytes may differ.
        inputs: digests of the provenance that it is about.
    """
    level = "MAMMOFLOW_" + result.verdict.upper().replace(",", "").replace("-", "_").replace(
        " ", "_"
    )
    return {
        "verifier": {"id": f"urn:mammoflow:auditor:{auditor}"},
        "timeVerified": _write_time(datetime.fromisoformat(result.date)),
        "resourceUri": f"urn:mammoflow:model:{MODEL}:{version}",
        "policy": {
            "uri": "urn:mammoflow:audit:v1",
            "digest": {"sha256": hash_bytes(write_canonical(dict(bounds)))},
        },
        "inputAttestations": [{"digest": {"sha256": digest}} for digest in inputs],
        "verificationResult": "PASSED" if result.passed else "FAILED",
        "verifiedLevels": [level] if result.passed else [],
        "mammoflow_audit": {
            "verdict": result.verdict,
            "standard": result.standard,
            "report_sha256": result.report,
        },
    }


def _name_files(digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """Files by their SHA-256."""
    return [
        {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())
    ]


def _name_objects(hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    """What DVC keeps: files by their MD5, folders by that of their list."""
    return [
        {
            "name": path,
            "digest": {"dvcDir" if md5.endswith(".dir") else "md5": md5.removesuffix(".dir")},
        }
        for path, md5 in sorted(hashes.items())
    ]


def _write_milliseconds(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return _write_time(datetime.fromtimestamp(milliseconds // 1000, UTC))


def _write_time(when: datetime) -> str:
    """A time as in-toto wants it: UTC, with a Z."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def replace_nan(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with None where a score is not defined: JSON has no other word for it."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
    }
