"""A registry that does not answer is not an empty one, and what is out of reach is not gone."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from typer.testing import CliRunner

from flows.audit.provenance import find_run
from flows.cli.app import app
from flows.processes.run_git import git
from flows.remote.stage_worker import _find_reachable_run
from flows.retraining import recovery
from flows.retraining.recovery import repair_registry
from flows.snapshots.environment import describe_environment
from flows.tracking import aliases, registry
from flows.tracking.names import MODEL
from flows.tracking.register import check_next_tag
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.small_project import store

NOBODY = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version, and a git that has tags of an earlier registry."""
    root = tmp_path_factory.mktemp("registry")
    (root / "mlruns").mkdir()
    git(root, "init", "-q")
    for name in ("name", "email"):
        git(root, "config", f"user.{name}", "tester")
    git(root, "commit", "-qm", "empty", "--allow-empty")
    git(root, "tag", "model/v1")
    client = store(root)
    run = str(client.create_run(registry.open_store(root)).info.run_id)
    client.log_text(run, describe_environment().model_dump_json(), registry.ENVIRONMENT_ARTIFACT)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, source=str(root), run_id=run)
    return root


@pytest.fixture
def version(root: Path) -> ModelVersion:
    store(root)
    return registry.get_version(1)


@pytest.fixture
def server_away(version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's server cannot be reached."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(NOBODY)
    mlflow.set_registry_uri(NOBODY)
    yield
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.mark.usefixtures("server_away")
def test_a_registry_that_does_not_answer_is_not_taken_for_an_empty_one(root: Path) -> None:
    with pytest.raises(registry.FAULTS) as told:
        check_next_tag(root)  # an empty one would mean: delete the tag
    assert not registry.is_absent(told.value)
    for ask in (registry.find_latest_version, lambda: registry.find(1)):
        with pytest.raises(registry.FAULTS):
            ask()


@pytest.mark.usefixtures("server_away")
def test_what_a_version_was_made_in_is_not_taken_for_unrecorded(version: ModelVersion) -> None:
    def text(version: ModelVersion) -> str | None:
        return registry.read_artifact(registry.read_run_id(version), "snapshot/x")

    for ask in (registry.read_environment, find_run, text):
        with pytest.raises(registry.FAULTS):
            ask(version)


@pytest.mark.usefixtures("server_away")
def test_a_worker_does_without_a_server_that_it_cannot_reach(version: ModelVersion) -> None:
    before = dict(os.environ)
    assert _find_reachable_run(str(version.run_id)) == ""
    assert dict(os.environ) == before


def test_a_record_that_is_not_there_is_none(version: ModelVersion) -> None:
    assert registry.read_environment(version) == describe_environment()
    assert registry.find(2) is None
    assert registry.read_artifact(str(version.run_id), "nothing.json") is None
    assert registry.read_artifact(str(version.run_id), "snapshot/nothing.json") is None
    assert registry.read_artifact("0" * 32, "nothing.json") is None
    MlflowClient().log_text(str(version.run_id), "in a folder", "folder/text.txt")
    assert registry.read_artifact(str(version.run_id), "folder") is None
    assert _find_reachable_run(str(version.run_id)) == version.run_id


def test_files_that_are_out_of_reach_are_not_taken_for_gone(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow answers, but not the store of its files."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient()
    files = f"{NOBODY}/api/2.0/mlflow-artifacts/artifacts"
    experiment = client.create_experiment("elsewhere", artifact_location=files)
    run = str(client.create_run(experiment).info.run_id)
    with pytest.raises(registry.FAULTS) as told:
        registry.read_artifact(run, registry.ENVIRONMENT_ARTIFACT)
    assert not registry.is_absent(told.value)


def test_a_version_whose_run_is_gone_is_left_alone(root: Path, version: ModelVersion) -> None:
    """It is nobody's half-registered version, and no reason to fail."""
    client = MlflowClient()
    model = client.create_model_version(MODEL, source=str(root), run_id="f" * 32)
    (root / ".dvc" / "tmp").mkdir(parents=True)
    repair_registry(root, registry.open_store(root), print)
    assert registry.find(int(model.version)) is not None
    client.delete_model_version(MODEL, model.version)
    git(root, "tag", "model/v2")
    with pytest.raises(
        UserError, match=r"git has the tag model/v2, and the registry sqlite.* no such version"
    ):
        check_next_tag(root)


def test_runs_that_name_each_other_as_parents_belong_to_no_retrain(root: Path) -> None:
    client = store(root)
    experiment = client.create_experiment("circle")
    one = client.create_run(experiment).info.run_id
    other = client.create_run(experiment, tags={MLFLOW_PARENT_RUN_ID: one}).info.run_id
    client.set_tag(one, MLFLOW_PARENT_RUN_ID, other)
    assert recovery._find_workspace(client, client.get_run(one)) is None


def test_the_tag_of_a_version_that_was_deleted_in_mlflow_stays_and_is_in_nobodys_way(
    root: Path, version: ModelVersion
) -> None:
    """The registry gives its number to no other, and the tag may be all that is left of it."""
    made = int(MlflowClient().create_model_version(MODEL, source=str(root)).version)
    aliases.move(registry.CHALLENGER, made, aliases.AUTOMATIC, "registered by a retrain")
    MlflowClient().delete_model_version(MODEL, str(made))
    git(root, "tag", "--force", f"model/v{made}")
    check_next_tag(root)


def test_another_registrys_versions_are_told_before_any_work(tmp_path: Path) -> None:
    """A clone with a registry of its own, beside the tags of the team's."""
    git(tmp_path, "init", "-q", "--bare", "origin.git")
    git(tmp_path, "clone", "-q", str(tmp_path / "origin.git"), "clone")
    root = tmp_path / "clone"
    (root / "mlruns").mkdir()
    store(root)
    git(root, "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x", "--allow-empty")
    git(root, "push", "-q", "origin", "HEAD:main")
    check_next_tag(root)
    for number in (1, 2, 10):  # pushed after this clone was made
        git(tmp_path / "origin.git", "update-ref", f"refs/tags/model/v{number}", "main")
    git(tmp_path / "origin.git", "update-ref", "refs/tags/model/other/v77", "main")
    with pytest.raises(UserError, match=r"tag model/v1 to v10, and the registry sqlite") as told:
        check_next_tag(root)
    for choice in ("MLFLOW_TRACKING_URI", "mammoflow --model NAME", "MAMMOFLOW_MODEL"):
        assert choice in str(told.value)
    (tmp_path / "origin.git").rename(tmp_path / "server_away")
    check_next_tag(root)  # whatever is published later, is compared then


def test_a_model_of_another_name_has_tags_of_its_own() -> None:
    code = (
        "from flows.tracking import names, registry; "
        "print(names.MODEL, registry.EXPERIMENT, names.name_tag(3))"
    )
    env = {**os.environ, "MAMMOFLOW_MODEL": "ward-7"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT
    )
    assert said.stdout.strip() == "ward-7 mammoflow ward-7 model/ward-7/v3"
    result = CliRunner().invoke(app, ["--model", "a/b", "retrain"])
    assert result.exit_code == 2
    assert "the model's name is 'a/b'" in result.output


def test_a_process_that_is_killed_while_it_makes_the_registry_leaves_no_half_of_one(
    tmp_path: Path,
) -> None:
    """MLflow makes its tables one by one, and refuses a file that has a part of them."""
    (tmp_path / "mlruns").mkdir()
    code = "import sys; from pathlib import Path; from flows.tracking.registry import open_store; "
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlruns/mlflow.db"}
    command = [sys.executable, "-c", f"{code} open_store(Path(sys.argv[1]))", str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not list((tmp_path / "mlruns").glob(".new-*/mlflow.db")):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert [file.name for file in (tmp_path / "mlruns").iterdir()] == ["mlflow.db"]
