"""Changing what a small project keeps about a version, after the fact."""

import filecmp
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from safetensors.numpy import load_file, save
from typer.testing import CliRunner, Result

from flows.cli.app import app
from flows.processes.run_git import git
from flows.snapshots.snapshot import Snapshot, read_tag, write_tag
from flows.tracking.names import MODEL
from mammoflow_artifacts import FOLDER, sqlite_file

KEPT = (".git", ".dvc/cache", "mlruns/artifacts", "data")
"""What may be changed, besides MLflow's database, and is put back."""
CLASSIFIER = "outputs/train_classifier/weights.safetensors"


def restore(source: Path, target: Path) -> None:
    """Make `target` hold what `source` holds; only what differs is copied."""
    for path in sorted(target.rglob("*"), reverse=True):  # what a folder holds before the folder
        if not (source / path.relative_to(target)).exists():
            path.rmdir() if path.is_dir() else path.unlink()
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif not copy.exists() or not filecmp.cmp(copy, path):
            copy.unlink(missing_ok=True)
            shutil.copy2(path, copy)


def database(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "mlruns" / "mlflow.db", timeout=30)


def sql(root: Path, statement: str, *values: object) -> None:
    with closing(database(root)) as connection:
        changed = connection.execute(statement, values).rowcount
        connection.commit()
    assert changed > 0


def version(number: int = 1) -> ModelVersion:
    return MlflowClient().get_model_version(MODEL, str(number))


def locate_artifact(root: Path, name: str) -> Path:
    """The file behind an artifact of version 1's run."""
    # Not by download_artifacts: that gives a copy.
    address: str = MlflowClient().get_run(str(version().run_id)).info.artifact_uri
    return root / "mlruns" / "artifacts" / urlparse(address).path.lstrip("/") / name


def model_folder(number: int = 1) -> Path:
    """The folder of a registered model in the clone's own store; no copy of it."""
    file = sqlite_file(mlflow.get_tracking_uri())
    assert file is not None
    address = MlflowClient().get_model_version_download_uri(MODEL, str(number))
    folder = file.parent / FOLDER / urlparse(address).path.lstrip("/")
    assert (folder / "MLmodel").is_file(), address
    return folder


def locate_cached(root: Path, snapshot: Snapshot, path: str, inside: str | None = None) -> Path:
    """The cached object of an out, or of a file in an out that is a folder."""
    lock = yaml.safe_load(snapshot.files["dvc.lock"])["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    outs["data"] = yaml.safe_load(snapshot.files["data.dvc"])["outs"][0]["md5"]
    md5: str = outs[path]
    folder = root / ".dvc" / "cache" / "files" / "md5"
    if inside is not None:
        listing = json.loads((folder / md5[:2] / md5[2:]).read_text())
        md5 = next(entry["md5"] for entry in listing if entry["relpath"].endswith(inside))
    return folder / md5[:2] / md5[2:]


def flip_a_byte(path: Path, position: int = -100) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def forge(root: Path, change: object) -> None:
    """Change dvc.lock in every record at once: git tag, MLflow's snapshot, digests."""
    assert callable(change)
    before = read_tag(root, "model/v1")
    lock = yaml.safe_load(before.files["dvc.lock"])
    change(lock["stages"])
    after = Snapshot(
        before.commit, {**before.files, "dvc.lock": yaml.safe_dump(lock, sort_keys=False)}
    )
    git(root, "tag", "-d", "model/v1")
    write_tag(root, after, "model/v1", "forged")
    locate_artifact(root, "snapshot/snapshot.json").write_text(after.to_json())
    locate_artifact(root, "snapshot/dvc.lock").write_text(after.files["dvc.lock"])
    client = MlflowClient()
    client.set_model_version_tag(MODEL, "1", "snapshot_digest", after.digest)
    client.set_tag(str(version().run_id), "snapshot_digest", after.digest)


def exchange_weights(root: Path) -> None:
    """Give version 1 other weights, with all that names them: only a re-run or a signature tells.

    The head's weights are negated; the predictions stay those of the old ones.
    """
    snapshot = read_tag(root, "model/v1")
    tensors = load_file(locate_cached(root, snapshot, CLASSIFIER))
    turned = {name: -x if name.startswith("head.") else x for name, x in tensors.items()}
    content = save(turned)
    md5 = put_into_cache(root, content)

    def change(stages: Mapping[str, Mapping[str, list[dict[str, object]]]]) -> None:
        for entry in list_entries(stages, CLASSIFIER):
            entry |= {"md5": md5, "size": len(content)}

    forge(root, change)
    served = model_folder() / "artifacts/predictor/classifier/weights.safetensors"
    served.write_bytes(content)


def list_entries(
    stages: Mapping[str, Mapping[str, list[dict[str, object]]]], path: str
) -> list[dict[str, object]]:
    """What a dvc.lock says of a path, wherever it is an out or a dep."""
    return [
        entry
        for stage in stages.values()
        for entry in (*stage.get("deps", []), *stage["outs"])
        if entry["path"] == path
    ]


def quick_audit() -> Result:
    """Audit version 1 without a re-run."""
    return CliRunner().invoke(app, ["audit", "1", "--quick"])


def assert_caught(result: Result, status: int, *words: str) -> None:
    """Make sure that an audit ended with this status, and with these words in its verdict."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    verdict = "NOT REPRODUCED" if status == 1 else "CANNOT BE JUDGED"
    assert verdict in result.output
    last = result.output[result.output.index(verdict) :]
    for word in words:
        assert word in last, result.output


def put_into_cache(root: Path, content: bytes, suffix: str = "") -> str:
    """Put an object into DVC's cache; its hash. That of a folder's list ends in `.dir`."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5
