"""A whole small project through its history, for the tests that need one: see HISTORY."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from pydicom import dcmread

import flows  # noqa: F401  (its environment must be set before a test imports Prefect)
from flows.processes.run_git import git
from flows.snapshots.snapshot import FILES
from mammo.base.settings import load_params
from mammo.data.splits import split_of
from tests.support import toys
from tests.support.markers import UID
from tests.support.receiver import Receiver, listening
from tests.support.repositories import init_repository
from tests.support.small_project import (
    Retrained,
    command,
    forget_experiment,
    in_order_of_history,
    make_project,
    retrained,
    store,
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the small project, so that it can run beside the rest: see the Makefile.

    What uses Prefect's server in this process goes there too: its threads draw from `random`, and
    tests of trainings count on being alone. Wherever the tests of the project lie, they run in the
    order of its history.
    """
    for item in items:
        if {"small_project", "prefect_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("whole")
    items[:] = in_order_of_history(items)


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all tests of a session; tests that change it must say so."""
    root = tmp_path_factory.mktemp("small") / "project"
    make_project(root)
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server for all tests of a session, as what a process needs to use it.

    Without it each retrain starts a temporary one, as `registered` does: seconds, each time.
    Nothing is set in this process, where tests that know of no server would find it: see
    `prefect_here`.
    """
    port = toys.find_free_port()
    with toys.prefect_server(tmp_path_factory.mktemp("prefect"), port):
        yield {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


@pytest.fixture
def prefect_here(prefect_server: dict[str, str]) -> Iterator[None]:
    """The server, for flows that run in this process."""
    # Here, and not above: what `flows` sets for Prefect must be there when Prefect is imported.
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        yield


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of git and DVC with code and the three files, and a clone of it beside it."""
    root = tmp_path / "project"
    (root / "mammo").mkdir(parents=True)
    init_repository(root, "Jörg Tester")
    (root / "mammo" / "science.py").write_text("ANSWER = 42\n")
    for name in FILES:
        (root / name).write_text(f"{name}: 1\n")
    Repo.init(str(root)).close()
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(root), "clone")
    return root


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry in which there is nothing yet."""
    root = tmp_path_factory.mktemp("registry")
    store(root)
    return root


@pytest.fixture(scope="package", autouse=True)
def no_store_left_behind() -> Iterator[None]:
    """`store` sets the whole process's, and a store so set outweighs the environment's."""
    yield
    forget_experiment()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def registered(small_project: Path) -> Retrained:
    """Retrained once: version 1 is champion.

    With Prefect's temporary server; the others use one that runs. And with proxies that lead
    nowhere: all of it is on loopback.
    """
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    return retrained("registered", small_project, nowhere)


@pytest.fixture(scope="session")
def unchanged_again(registered: Retrained, prefect_server: dict[str, str]) -> Retrained:
    """Retrained again with nothing to do. What comes later does not need it."""
    return retrained("unchanged_again", registered.root, prefect_server)


@pytest.fixture(scope="session")
def receiver_of_challenger() -> Iterator[Receiver]:
    """Gets the notifications of `challenged`."""
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def challenged(
    registered: Retrained, prefect_server: dict[str, str], receiver_of_challenger: Receiver
) -> Retrained:
    """A changed setting of `evaluate`: version 2 is challenger."""
    root = registered.root
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["evaluate"]["beta"] = 1.0
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    make_block = (
        "import flows; from prefect.blocks.webhook import Webhook; "
        f"Webhook(url={receiver_of_challenger.url!r}).save('challenger')"
    )
    command(root, sys.executable, "-c", make_block, extra_env=prefect_server)
    notify = {"MAMMOFLOW_NOTIFY": "webhook/challenger"}
    return retrained("challenged", root, {**prefect_server, **notify})


@pytest.fixture(scope="session")
def leaking(challenged: Retrained, prefect_server: dict[str, str]) -> Retrained:
    """New data and another seed, committed: a woman of the training set is there once more.

    Her images are in the test set under another name: other bytes, the same pixels. The code is
    one that does not look for copies: an audit must not rely on the pipeline that it judges.
    """
    root = challenged.root
    labels = pd.read_csv(root / "data" / "train.csv", dtype=str, keep_default_na=False)
    shares = load_params(root / "params.yaml").split
    woman = next(name for name in labels["patient_id"] if split_of(name, shares) == "train")
    twin = next(str(name) for name in range(900, 999) if split_of(str(name), shares) == "test")
    rows = labels[labels["patient_id"] == woman].copy()
    (root / "data" / "train_images" / twin).mkdir()
    for image in rows["image_id"]:
        content = dcmread(root / "data" / "train_images" / woman / f"{image}.dcm")
        content.PatientID = twin
        content.SOPInstanceUID = f"{UID}.{twin}.{image}"
        content.save_as(root / "data" / "train_images" / twin / f"{image}9.dcm")
    rows["patient_id"], rows["image_id"] = twin, rows["image_id"] + "9"
    pd.concat([labels, rows]).to_csv(root / "data" / "train.csv", index=False)
    command(root, "dvc", "add", "-q", "data")
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("seed: 20", "seed: 21"))
    path = root / "stages" / "preprocess.py"
    looking, not_looking = "reject_copies(records, track(", "list(track("
    assert looking in path.read_text()
    path.write_text(path.read_text().replace(looking, not_looking))
    command(root, "git", "commit", "-qam", "new data")
    return retrained("leaking", root, prefect_server)
