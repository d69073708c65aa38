"""Whole small projects, one for each module of tests that needs one.

They go through the states of HISTORY. A project starts with what the stages of an earlier one made,
so that its retrain computes little; its runs, versions and records are its own.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from dvc.repo import Repo

import flows  # noqa: F401  (its environment must be set before a test imports Prefect)
from flows.processes.run_git import git
from flows.snapshots.snapshot import FILES
from tests.support import toys
from tests.support.receiver import Receiver, listening
from tests.support.repositories import init_repository
from tests.support.small_project import (
    Retrained,
    command,
    draw_data,
    find_crowds,
    forget_experiment,
    in_order_of_history,
    keep_cache,
    make_project,
    retrained,
    store,
    take_cache,
)

MOST = 19
"""Tests that may stand on one run: if it fails, all of them do, and none says more than another."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a small project, so that it can run beside the rest: see the Makefile.

    What uses Prefect's server in this process goes there too: its threads draw from `random`, and
    tests of trainings count on being alone.
    """
    for item in items:
        if {"drawn", "prefect_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("whole")
    if crowds := find_crowds(items, MOST):
        raise pytest.UsageError(f"more than {MOST} tests on one run: {crowds}")
    items[:] = in_order_of_history(items)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of every small project: drawn once, which takes seconds."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    draw_data(folder)
    return folder


@pytest.fixture(scope="session")
def kept_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where DVC's cache of the first project is that was retrained; nothing is there before."""
    return tmp_path_factory.mktemp("kept") / "cache"


@pytest.fixture(scope="module")
def small_project(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Path:
    """The project of a module; a test that changes it puts it back, or says that it does not."""
    root = tmp_path_factory.mktemp("small") / "project"
    make_project(root, drawn)
    return root


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server for all tests of a session, as what a process needs to use it.

    Without it each retrain starts a temporary one: seconds, each time.
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


@pytest.fixture(scope="module")
def registered(small_project: Path, kept_cache: Path, prefect_server: dict[str, str]) -> Retrained:
    """Retrained once: version 1 is champion. Stages may come from another project's cache."""
    take_cache(kept_cache, small_project)
    found = retrained("registered", small_project, prefect_server)
    keep_cache(small_project, kept_cache)
    return found


@pytest.fixture(scope="module")
def unchanged_again(registered: Retrained, prefect_server: dict[str, str]) -> Retrained:
    """Retrained again with nothing to do. What comes later does not need it."""
    return retrained("unchanged_again", registered.root, prefect_server)


@pytest.fixture(scope="module")
def receiver_of_challenger() -> Iterator[Receiver]:
    """Gets the notifications of `challenged`."""
    with listening() as receiver:
        yield receiver


@pytest.fixture(scope="module")
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
