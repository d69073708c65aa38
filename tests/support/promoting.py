"""What tests of promotions ask and change: the command line, tags, one more version, records."""

from pathlib import Path

from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from flows.cli.app import app
from flows.processes.run_git import git
from flows.snapshots.snapshot import Snapshot, tag_exists, write_tag
from flows.tracking.names import MODEL
from flows.tracking.registry import SNAPSHOT_ARTIFACT


def run(*arguments: str) -> Result:
    """Run the command line; an exception that is no exit fails the test."""
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, list(arguments))  # no line is cut
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def tags(version: int = 2) -> dict[str, str]:
    return dict(MlflowClient().get_model_version(MODEL, str(version)).tags)


def copied_version(version: int) -> str:
    """Another version of the same run, as if a retrain had made these weights once more."""
    client = MlflowClient()
    found = client.get_model_version(MODEL, str(version))
    made = client.create_model_version(MODEL, str(found.source), found.run_id)
    for name in ("snapshot_digest", "git_commit", "data_hash"):
        client.set_model_version_tag(MODEL, made.version, name, found.tags[name])
    return str(made.version)


def record(root: Path, version: int, snapshot: Snapshot) -> None:
    """Let all three, run, registry and git, hold this for a version's snapshot."""
    run_id = str(MlflowClient().get_model_version(MODEL, str(version)).run_id)
    MlflowClient().log_text(run_id, snapshot.to_json(), SNAPSHOT_ARTIFACT)
    MlflowClient().set_model_version_tag(MODEL, str(version), "snapshot_digest", snapshot.digest)
    if tag_exists(root, f"model/v{version}"):
        git(root, "tag", "-d", f"model/v{version}")
    write_tag(root, snapshot, f"model/v{version}", "once more")
