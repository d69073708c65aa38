"""A whole small project in a folder of its own: our code, real git, real DVC, tiny phantoms."""

import functools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from pydicom import dcmread

import flows  # noqa: F401  (its environment must be set before a test imports Prefect)
from benchmarks.overhead import SMALL
from mammo.base.settings import load_params
from mammo.data.splits import split_of
from mammo.datasets.phantom.draw import write_phantoms
from tests.imports import ROOT
from tests.support import toys
from tests.support.markers import UID, plant
from tests.support.receiver import Receiver, listening
from tests.support.tampering import KEPT, database, restore

TINY = {
    **SMALL,
    "policy": {"approve": "manual", "bootstrap": 200, "sensitivity_floor": 0.0},
}
CODE = (
    *("mammo", "stages", "flows", "weights"),
    *("dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"),
    "mammoflow_artifacts.py",
)


def environment_of(root: Path) -> dict[str, str]:
    """What a process of the project gets: its own code, and nothing that points it elsewhere.

    Nor what libraries set in this process as they were imported: ultralytics sets OMP_NUM_THREADS.
    """
    ours = ("MLFLOW_", "PREFECT_", "MAMMOFLOW_")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.endswith("_NUM_THREADS")
    }
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env["DVC_NO_ANALYTICS"] = "1"
    env["PYTHONPATH"] = str(root)  # the copy's code, not the one installed
    return env


def command(
    root: Path, *arguments: str, check: bool = True, extra_env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, by `environment_of`; a failure shows its output."""
    result = subprocess.run(
        arguments,
        cwd=root,
        env={**environment_of(root), **(extra_env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check:
        assert result.returncode == 0, result.stdout
    return result


def mammoflow(
    root: Path, *arguments: str, check: bool = True, extra_env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line of the project's own code."""
    arguments = (sys.executable, "-m", "flows.cli", *arguments)
    return command(root, *arguments, check=check, extra_env=extra_env)


def make_project(root: Path) -> None:
    """Our code with small settings and a small data set, committed."""
    root.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in TINY.items():
        params[section].update(changes)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command(root, "git", "init", "-q", "-b", "main")
    command(root, "git", "config", "user.name", "Tester")
    command(root, "git", "config", "user.email", "tester@localhost")
    command(root, "git", "config", "tag.gpgSign", "true")  # as a person may have it
    command(root, "dvc", "init", "-q")
    write_phantoms(root / "data", women=24, seed=5, long_side=256)
    plant(root / "data")
    command(root, "dvc", "add", "-q", "data")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", "a small project")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the small project, so that it can run beside the rest: see the Makefile.

    What uses Prefect's server in this process goes there too: its threads draw from `random`, and
    tests of trainings count on being alone.
    """
    for item in items:
        if {"small_project", "prefect_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("whole")


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all tests of a session; tests that change it must say so."""
    root = tmp_path_factory.mktemp("small") / "project"
    make_project(root)
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server for all tests of a session, as what a process needs to use it.

    Without it each retrain starts a temporary one, as `first` does: seconds, each time. Nothing
    is set in this process, where tests that know of no server would find it: see `prefect_here`.
    """
    port = toys.free_port()
    with toys.prefect_server(tmp_path_factory.mktemp("prefect"), port):
        yield {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


@pytest.fixture
def prefect_here(prefect_server: dict[str, str]) -> Iterator[None]:
    """The server, for flows that run in this process."""
    # Here, and not above: what `flows` sets for Prefect must be there when Prefect is imported.
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]}):
        yield


@dataclass(frozen=True)
class Retrained:
    """A project after a retrain, and what the console said."""

    root: Path
    said: str
    runs: int  # in MLflow after it


@functools.cache
def empty_database() -> bytes:
    """MLflow's SQLite file before there is anything in it: to make its tables takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        MlflowClient(uri, uri).search_experiments()
        return (Path(folder) / "mlflow.db").read_bytes()


def store(root: Path) -> MlflowClient:
    file = root / "mlruns" / "mlflow.db"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(empty_database())
    uri = f"sqlite:///{file}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    # Kept by a run's id alone, which a copy of a project has as well.
    _artifact_repos_cache.clear()
    return MlflowClient()


def all_runs(root: Path) -> list[Run]:
    client = store(root)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, max_results=1000))


def retrained(root: Path, extra_env: Mapping[str, str] | None = None) -> Retrained:
    said = mammoflow(root, "retrain", extra_env=extra_env).stdout
    return Retrained(root, said, len(all_runs(root)))


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
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture(scope="session")
def first(small_project: Path) -> Retrained:
    """With Prefect's temporary server; the others use one that runs.

    And with proxies that lead nowhere: all of it is on loopback.
    """
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    return retrained(small_project, nowhere)


@pytest.fixture(scope="session")
def second(first: Retrained, prefect_server: dict[str, str]) -> Retrained:
    return retrained(first.root, prefect_server)


@pytest.fixture(scope="session")
def receiver_of_third() -> Iterator[Receiver]:
    """Gets the notifications of the third retrain."""
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def third(
    second: Retrained, prefect_server: dict[str, str], receiver_of_third: Receiver
) -> Retrained:
    path = second.root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["evaluate"]["beta"] = 1.0
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    make_block = (
        "import flows; from prefect.blocks.webhook import Webhook; "
        f"Webhook(url={receiver_of_third.url!r}).save('third')"
    )
    command(second.root, sys.executable, "-c", make_block, extra_env=prefect_server)
    return retrained(second.root, {**prefect_server, "MAMMOFLOW_NOTIFY": "webhook/third"})


@pytest.fixture(scope="session")
def fourth(third: Retrained, prefect_server: dict[str, str]) -> Retrained:
    """New data and another seed, committed: a woman of the training set is there once more.

    Her images are in the test set under another name: other bytes, the same pixels. The code is
    one that does not look for copies: an audit must not rely on the pipeline that it judges.
    """
    root = third.root
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
    looking, not_looking = "without_copies(records, track(", "list(track("
    assert looking in path.read_text()
    path.write_text(path.read_text().replace(looking, not_looking))
    command(root, "git", "commit", "-qam", "new data")
    return retrained(root, prefect_server)


@pytest.fixture(scope="module")
def pristine(fourth: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that a test may tamper with."""
    backup = tmp_path_factory.mktemp("pristine")
    for name in KEPT:
        shutil.copytree(fourth.root / name, backup / name)
    with closing(database(fourth.root)) as live, closing(sqlite3.connect(backup / "db")) as copy:
        live.backup(copy)
    return backup


@pytest.fixture
def root(fourth: Retrained, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, to tamper with."""
    root = fourth.root
    monkeypatch.chdir(root)
    store(root)
    yield root
    for name in KEPT:
        restore(pristine / name, root / name)
    # Into the file as it is: MLflow keeps connections to it.
    with closing(database(root)) as live, closing(sqlite3.connect(pristine / "db")) as copy:
        copy.backup(live)
