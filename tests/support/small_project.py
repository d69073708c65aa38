"""Whole small projects in folders of their own: our code, real git, real DVC, tiny phantoms."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

import flows  # noqa: F401  (its environment must be set before a test imports Prefect)
from benchmarks.overhead import SMALL
from flows.tracking.registry import EXPERIMENT
from mammo.datasets.phantom.draw import write_phantoms
from tests.imports import ROOT
from tests.support.markers import plant
from tests.support.processes import inherited_environment
from tests.support.repositories import init_repository

HISTORY = ("registered", "unchanged_again", "challenged")
"""A project's states, by their fixtures, from the youngest to the oldest."""
COLD = "test_end_to_end"
"""The module in whose project every stage runs; the others may take over what its stages made."""
CODE = (
    *("mammo", "stages", "flows", "weights"),
    *("dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore"),
    "mammoflow_artifacts.py",
)


def make_environment(root: Path) -> dict[str, str]:
    """What a process of the project gets: its own code, and nothing that points it elsewhere."""
    env = inherited_environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env["DVC_NO_ANALYTICS"] = "1"
    env["PYTHONPATH"] = str(root)  # the copy's code, not the one installed
    return env


def command(
    root: Path, *arguments: str, check: bool = True, extra_env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, by `make_environment`; a failure shows its output."""
    result = subprocess.run(
        arguments,
        cwd=root,
        env={**make_environment(root), **(extra_env or {})},
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


def draw_data(folder: Path) -> None:
    """A small data set, with the markers of what is personal in it."""
    write_phantoms(folder, women=24, seed=5, long_side=256)
    plant(folder)


def make_project(root: Path, data: Path) -> None:
    """Our code with small settings and a copy of a small data set, committed."""
    root.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in SMALL.items():
        params[section].update(changes)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    plan = yaml.safe_load((ROOT / "plan.yaml").read_text())
    plan["policy"].update(approve="manual", bootstrap=200, sensitivity_floor=0.0)
    (root / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    init_repository(root)
    command(root, "git", "config", "tag.gpgSign", "true")  # as a person may have it
    command(root, "dvc", "init", "-q")
    shutil.copytree(data, root / "data")
    command(root, "dvc", "add", "-q", "data")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-qm", "a small project")


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
    """The client of a project's registry, which becomes the whole process's; made if need be."""
    file = root / "mlruns" / "mlflow.db"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(empty_database())
    uri = f"sqlite:///{file}"
    if mlflow.get_tracking_uri() != uri:
        forget_experiment()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    forget_artifacts()
    return MlflowClient()


def forget_artifacts() -> None:
    """Let MLflow look up anew where the artifacts of runs are.

    It keeps that by a run's id alone, which a copy of a project has as well; and it has no function
    that clears what it keeps.
    """
    _artifact_repos_cache.clear()


def forget_experiment() -> None:
    """Let no run go to the experiment that another registry was asked for in this process.

    MLflow keeps its number in two variables, and has no function that clears them.
    """
    fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def forget_looks() -> None:
    """Remove the records of looks: under rules that come later no model could be judged again."""
    client, found = MlflowClient(), MlflowClient().get_experiment_by_name(EXPERIMENT)
    assert found is not None
    for name in found.tags:
        if name.startswith("look"):
            client.delete_experiment_tag(found.experiment_id, name)


def list_all_runs(root: Path) -> list[Run]:
    return list_runs(store(root))


def list_runs(client: MlflowClient) -> list[Run]:
    """The runs of every experiment."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, max_results=1000))


def retrained(state: str, root: Path, extra_env: Mapping[str, str] | None = None) -> Retrained:
    """Retrain a project, for the fixture of that name.

    A failure is told in few lines, since each test that needs the fixture shows them; pytest shows
    all that was said with the first of these tests.
    """
    result = mammoflow(root, "retrain", check=False, extra_env=extra_env)
    if result.returncode != 0:
        print(result.stdout)
        last = "\n".join(result.stdout.splitlines()[-12:])
        pytest.fail(
            f"no {state!r} project: its `mammoflow retrain` ended with status {result.returncode} "
            f"(all that it said is with the first test that needs it), at last with\n{last}",
            pytrace=False,
        )
    return Retrained(root, result.stdout, len(list_all_runs(root)))


def keep_cache(root: Path, kept: Path) -> None:
    """Keep what the stages of a project made that has been retrained, if nothing is kept yet."""
    if not kept.exists():
        shutil.copytree(root / ".dvc" / "cache", kept)


def take_cache(kept: Path, root: Path) -> None:
    """Give a project what the stages of another one made, if that came so far.

    DVC runs no stage again whose code, settings and inputs are those of a run in the cache. It is
    no dependence: without it the stages run.
    """
    if kept.exists():
        shutil.copytree(kept, root / ".dvc" / "cache", dirs_exist_ok=True)


def state_of(item: pytest.Item) -> int:
    """How old the project must be for a test, as an index of HISTORY; -1 if it needs none."""
    names = getattr(item, "fixturenames", ())
    return max((HISTORY.index(name) for name in names if name in HISTORY), default=-1)


def in_order_of_history(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests, those of each module by the state in which they need the project.

    A module has one project, and it does not grow younger: what needs an earlier state comes first.
    The module COLD comes before all that have a project; what needs none stays where it was.
    """
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    ordered = [sorted(of_module, key=state_of) for of_module in modules.values()]
    with_project = [x for x in ordered if state_of(x[-1]) >= 0]
    cold = [x for x in with_project if Path(x[0].nodeid.partition("::")[0]).stem == COLD]
    if cold:
        first = ordered.index(with_project[0])
        ordered.remove(cold[0])
        ordered.insert(first, cold[0])
    return [item for of_module in ordered for item in of_module]


def find_crowds(items: list[pytest.Item], most: int) -> dict[str, int]:
    """How many tests stand on one run of a module's project, where these are more than `most`.

    Args:
        items: all tests; each names the fixtures that it needs, and those that they need.
        most: tests that may stand on one run.
    """
    counts = Counter(
        f"{name} of {item.nodeid.partition('::')[0]}"
        for item in items
        for name in getattr(item, "fixturenames", ())
        if name in HISTORY
    )
    return {run: count for run, count in counts.items() if count > most}
