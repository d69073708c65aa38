"""Nobody takes over from a champion that was deleted in MLflow, and no look is taken too many.

Toys whose gate has nothing to score are enough: without a champion it never comes to that.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from flows.retraining.recovery import name_workspace
from flows.tracking.names import MODEL
from flows.tracking.runs import WORKSPACE
from tests.support.toys import Retrain, find_free_port, make_toy, prefect_server, run

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    port = find_free_port()
    with prefect_server(tmp_path_factory.mktemp("prefect"), port):
        yield {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


@pytest.fixture(scope="module")
def one_version(tmp_path_factory: pytest.TempPathFactory, prefect: dict[str, str]) -> Path:
    """A toy after its first retrain: version 1 is champion."""
    root = tmp_path_factory.mktemp("one") / "toy"
    make_toy(root)
    approve(root, "automatic")
    said = ended(root, prefect, "retrain")
    assert f"{MODEL} version 1, alias champion" in said
    return root


@pytest.fixture
def root(one_version: Path, tmp_path: Path) -> Path:
    """A copy, with the next retrain's changes in it."""
    root = tmp_path / "toy"
    shutil.copytree(one_version, root, symlinks=True)
    (root / "slow.sh").write_text((root / "slow.sh").read_text() + "# changed\n")
    run(root, "git", "commit", "-qam", "a change")
    return root


def approve(root: Path, how: str) -> None:
    plan = (root / "plan.yaml").read_text()
    (root / "plan.yaml").write_text(
        plan.replace("approve: manual", f"approve: {how}").replace(
            "approve: automatic", f"approve: {how}"
        )
    )
    assert f"approve: {how}" in (root / "plan.yaml").read_text()
    run(root, "git", "commit", "-qam", f"approve: {how}", "--allow-empty")


def ended(root: Path, env: dict[str, str], *arguments: str, status: int = 0) -> str:
    work = Retrain(root, env, *arguments)
    said = work.said()
    assert work.process.returncode == status, said
    return said


def registry_of(root: Path) -> MlflowClient:
    uri = f"sqlite:///{root}/mlruns/mlflow.db"
    return MlflowClient(uri, uri)


def aliases_of(root: Path) -> dict[str, int]:
    model = registry_of(root).get_registered_model(MODEL)
    return {name: int(version) for name, version in model.aliases.items()}


@pytest.mark.parametrize(("policy", "gone"), [("automatic", "alias"), ("manual", "version")])
def test_who_comes_after_a_deleted_champion_is_challenger_and_a_person_decides(
    root: Path, prefect: dict[str, str], policy: str, gone: str
) -> None:
    approve(root, policy)
    if gone == "alias":
        registry_of(root).delete_registered_model_alias(MODEL, "champion")
    else:
        registry_of(root).delete_model_version(MODEL, "1")
    said = ended(root, prefect, "retrain")
    assert f"{MODEL} version 2, alias challenger" in said
    assert "there is no champion: version 1 was, until it or its alias was deleted" in said
    assert 'mammoflow promote 2 --reason "..."' in said
    assert aliases_of(root) == {"challenger": 2}
    if (policy, gone) != ("automatic", "alias"):
        return
    # The gate has nothing to hold it against: it takes a reason, and a name.
    ended(root, prefect, "promote", "2", "--reason", "the old one was bad")
    assert aliases_of(root) == {"champion": 2}
    [move] = [
        text
        for name, text in registry_of(root).get_registered_model(MODEL).tags.items()
        if name.startswith("alias_move.") and "the old one was bad" in text
    ]
    assert "Tester <tester@localhost>" in move


def test_a_champion_without_its_tags_and_its_records_is_never_removed(
    root: Path, prefect: dict[str, str]
) -> None:
    client = registry_of(root)
    version = client.get_model_version(MODEL, "1")
    for name in version.tags:
        client.delete_model_version_tag(MODEL, "1", name)
    client.set_tag(str(version.run_id), WORKSPACE, name_workspace(root))  # the copy's own
    snapshot = root / "mlruns/artifacts" / str(version.run_id) / "artifacts/snapshot"
    hidden = snapshot.rename(snapshot.with_name("hidden"))
    try:
        said = ended(root, prefect, "retrain")
    finally:
        hidden.rename(snapshot)
    assert "version 1 lacks the tag git_tag, but stays: the run" in said
    assert "version 2, alias challenger" in said
    assert "the snapshot of version 1 cannot be read from MLflow" in said  # the gate
    assert aliases_of(root) == {"champion": 1, "challenger": 2}


def test_without_a_look_a_retrain_ends_before_the_scores_and_registers_nothing(
    root: Path, prefect: dict[str, str]
) -> None:
    path = root / "plan.yaml"
    plan = yaml.safe_load(path.read_text())
    plan["looks"].update(number=1, sets=2, error=0.05)
    path.write_text(yaml.safe_dump(plan))
    said = ended(root, prefect, "retrain", status=1)
    assert "no look is left at set 1 of test women (1 women): all 1 that looks.number" in said
    assert "1 more new test women open the next set" in said
    assert "Traceback" not in said
    assert "Running stage 'slow'" in said
    assert "Running stage 'last'" not in said
    assert len(registry_of(root).search_model_versions(f"name = '{MODEL}'")) == 1
    # With a look it goes on from there.
    plan["looks"].update(number=2, error=0.1)
    path.write_text(yaml.safe_dump(plan))
    said = ended(root, prefect, "retrain")
    assert "Running stage 'slow'" not in said
    assert f"{MODEL} version 2" in said
