"""A project of git and MLflow whose versions are signed: real stores, models of three small files.

Nothing is trained: what is signed are records and bytes, and those are as a retrain leaves them.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.evidence import signing
from flows.evidence.keys import make_key
from flows.evidence.statements import AuditResult
from flows.evidence.verify import hash_bytes, write_canonical, write_manifest
from flows.processes.run_git import git
from flows.snapshots.environment import describe_environment
from flows.snapshots.snapshot import capture, write_tag
from flows.tracking import aliases
from flows.tracking.names import MODEL, name_tag
from flows.tracking.registry import (
    ENVIRONMENT_ARTIFACT,
    SNAPSHOT_ARTIFACT,
    get_version,
    make_snapshot_tags,
    open_store,
)
from mammo.assurance.plan import Plan, load_plan
from mammo.assurance.promotion_rule import check_floors, decide
from tests.imports import ROOT
from tests.support.judged import plan, women
from tests.support.small_project import store

LOCK = {
    "schema": "2.0",
    "stages": {
        "split": {
            "cmd": "python -m stages.split",
            "outs": [{"path": "outputs/split/split.csv", "md5": "a" * 32, "size": 1}],
        },
        "train_classifier": {
            "cmd": "python -m stages.train_classifier",
            "outs": [{"path": "outputs/train_classifier", "md5": "b" * 32 + ".dir", "size": 1}],
        },
    },
}
PACKAGE = f"numpy==2.3.0 \\\n    --hash=sha256:{'c' * 64}\n"
WHO = "Anna Tester <anna@localhost>"


def make_repository(root: Path) -> None:
    """The records of a project, committed."""
    (root / "weights").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Anna Tester")
    git(root, "config", "user.email", "anna@localhost")
    Repo.init(str(root)).close()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".gitignore").write_text("/mlruns/\n")
    for name in ("params.yaml", "plan.yaml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    data = {"outs": [{"path": "data", "md5": "d" * 32 + ".dir", "size": 1}]}
    (root / "data.dvc").write_text(yaml.safe_dump(data))
    (root / "dvc.lock").write_text(yaml.safe_dump(LOCK))
    (root / "requirements.lock").write_text(PACKAGE)
    out = {"outs": [{"path": "start.safetensors", "md5": "e" * 32, "size": 1}]}
    (root / "weights" / "start.safetensors.dvc").write_text(yaml.safe_dump(out))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "records")


def make_keys(root: Path) -> None:
    """A key of each role, in the folder that the environment names."""
    for name, role in (("server", "builder"), ("anna", "approver"), ("lab", "auditor")):
        make_key(root, name, role, None)


def register(root: Path, text: str) -> ModelVersion:
    """Register a model whose weights are a text, with the records of a retrain."""
    client, snapshot = store(root), capture(root)
    run = client.create_run(open_store(root))
    name = run.info.run_id
    client.log_text(name, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    client.log_text(name, describe_environment().model_dump_json(), ENVIRONMENT_ARTIFACT)
    client.log_text(name, f"run_id: {name}\n", "model/MLmodel")
    client.log_text(name, text, "model/artifacts/predictor/weights.safetensors")
    client.log_text(name, "ANSWER = 42\n", "model/code/mammo/science.py")
    client.set_terminated(name)
    if not client.search_registered_models():
        client.create_registered_model(MODEL)
    source = f"{run.info.artifact_uri}/model"
    made = client.create_model_version(MODEL, source, name, tags=make_snapshot_tags(snapshot))
    number = int(made.version)
    write_tag(root, snapshot, name_tag(number), f"version {number}")
    return get_version(number)


def look(number: int) -> dict[str, Any]:
    """A look as the gate records it."""
    return {"set": 1, "number": number, "error": 0.05, "test_women": "d" * 64}


def sign_first(root: Path, said: Plan) -> ModelVersion:
    """Register, sign, judge and promote a first version, as a retrain does."""
    signing.sign_plan(root, said)
    version = register(root, "first")
    signing.sign_version(root, version)
    decision = check_floors(women(30, seed=1), said.policy)
    signing.sign_evaluation(root, version, None, said, decision, "promote", look(1))
    aliases.make_champion(int(version.version), aliases.AUTOMATIC, "the gate: good")
    signing.sign_decision(root, "promotion", version, "mammoflow", "good", (None, 1))
    return version


def sign_second(root: Path, said: Plan) -> ModelVersion:
    """The same of a second version: it is refused, approved by a person, and rolled back from."""
    signing.sign_plan(root, said)
    version, first = register(root, "second"), get_version(1)
    signing.sign_version(root, version)
    decision = decide(women(30, seed=1), women(30, seed=1, shift=0.5), said.policy, 0.95)
    signing.sign_evaluation(root, version, 1, said, decision, "refuse", look(2))
    signing.sign_decision(root, "refusal", version, "mammoflow", "worse", (1, 1))
    aliases.make_champion(2, WHO, "agreed")
    signing.sign_decision(root, "approval", version, WHO, "agreed", (1, 2))
    signing.sign_audit(
        root,
        version,
        AuditResult(
            date="2026-11-27T10:00:00+00:00",
            passed=True,
            verdict="reproduced bit for bit",
            standard="bit for bit",
            report="f" * 64,
        ),
    )
    aliases.roll_back(WHO, "recalls too many", str)
    signing.sign_decision(root, "rollback", first, WHO, "recalls too many", (2, 1))
    return version


def make_signed_project(root: Path) -> None:
    """Two versions with eleven signed lines."""
    make_repository(root)
    make_keys(root)
    git(root, "add", "keys")
    git(root, "commit", "-qm", "keys")
    store(root)
    sign_first(root, load_plan(root / "plan.yaml"))
    sign_second(root, plan())


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file."""
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in change(lines)))


def read_payload(raw: str) -> dict[str, Any]:
    """The statement in a line."""
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(raw)["payload"]))
    return found


def with_payload(raw: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A line whose statement was changed, with the old signature."""
    envelope, statement = json.loads(raw), read_payload(raw)
    change(statement)
    envelope["payload"] = base64.b64encode(write_canonical(statement)).decode()
    return write_canonical(envelope).decode()


def renew_manifest(export: Path) -> None:
    """Make an export's manifest fit its files again, as a forger would."""
    path = export / "manifest.json"
    manifest = json.loads(path.read_text())
    files = [x for x in sorted(export.rglob("*")) if x.is_file() and x != path]
    manifest["files"] = {
        file.relative_to(export).as_posix(): hash_bytes(file.read_bytes()) for file in files
    }
    path.write_text(write_manifest(manifest))


def rewrite_records(root: Path, version: ModelVersion, text: str) -> None:
    """Replace a version by another consistent one: model, snapshot, registry and git together."""
    client = MlflowClient()
    forged = capture(root)
    client.log_text(str(version.run_id), text, "model/artifacts/predictor/weights.safetensors")
    client.log_text(str(version.run_id), forged.to_json(), SNAPSHOT_ARTIFACT)
    for key, value in make_snapshot_tags(forged).items():
        client.set_model_version_tag(MODEL, version.version, key, value)
    git(root, "tag", "-d", name_tag(int(version.version)))
    write_tag(root, forged, name_tag(int(version.version)), "forged")
