"""Artifacts can be had wherever the registry can: alone, through a server, moved and copied.

The registry is real and so is the server, which is started as `mammoflow up` starts it; the
project has the form of ours, with a model of three lines instead of the predictor.
"""

import getpass
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from flows.audit.audit import audit
from flows.audit.history import keep
from flows.processes.run_git import git
from flows.servers import wanted
from flows.snapshots.earlier_layout import locate_module
from flows.snapshots.environment import describe_environment
from flows.snapshots.snapshot import Snapshot
from flows.tracking import addresses, names, registry, runs
from flows.tracking.register import NETWORKS, SCORES, SERVING, register
from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.errors import UserError
from mammo.base.settings import load_params
from mammoflow_artifacts import artifact_repository, sqlite_file
from tests.imports import ROOT, imports_of
from tests.support.contents import contents
from tests.support.registry_server import serve_registry
from tests.support.small_project import forget_artifacts
from tests.support.toys import environment

MODEL = """
    import mlflow, pandas
    from pathlib import Path
    class Model(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            folder = Path(context.artifacts["predictor"])
            self.found = (folder / "detector" / "weights.safetensors").read_text()
        def predict(self, context, model_input, params=None):
            return pandas.DataFrame({"probability": [float(self.found)] * len(model_input)})
    mlflow.models.set_model(Model())
"""
PLAIN = """
    import importlib.metadata as metadata
    import json, sys
    installed = metadata.entry_points
    metadata.entry_points = lambda **wanted: (
        () if wanted.get("group") == "mlflow.artifact_repository" else installed(**wanted)
    )
    import mlflow
    run, folder = sys.argv[1:]
    client = mlflow.MlflowClient()
    listed = [found.path for found in client.list_artifacts(run, "snapshot")]
    text = mlflow.artifacts.load_text(f"runs:/{run}/snapshot/snapshot.json")
    model = mlflow.artifacts.download_artifacts(
        "models:/mammogram-classifier@challenger", dst_path=folder
    )
    mlflow.set_experiment("mammoflow")
    with mlflow.start_run() as mine:
        mlflow.log_text("by a client", "note.txt")
    with mlflow.start_run(experiment_id="0") as other:
        mlflow.log_text("in another experiment", "note.txt")
    assert "mammoflow_artifacts" not in sys.modules
    print(json.dumps([listed, text, model, mine.info.run_id, other.info.run_id]))
"""  # RUN FOLDER: what a machine without Mammoflow does

FIRST, SECOND = "0.25", "0.75"  # what the models of both versions say
DATA = "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e.dir\n  path: data\n"


def make_project(root: Path) -> None:
    """What a registration reads, and git."""
    files = {
        locate_module(SERVING): textwrap.dedent(MODEL),
        "mammo/__init__.py": '"""The code that travels."""\n',
        "params.yaml": (ROOT / "params.yaml").read_text(),
        "data.dvc": DATA,
        "data/train.csv": "patient_id,image_id,cancer\n1,1,0\n",
        **{f"{part}/{name}": FIRST for part in NETWORKS.values() for name in NETWORK_FILES},
        **dict.fromkeys(SCORES.values(), "{}"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".gitignore").write_text("/data/\n/mlruns/\n/outputs/\n/.dvc/\n/.prefect/\n")
    git(root, "init", "-q", "-b", "main")
    for name in ("name", "email"):
        git(root, "config", f"user.{name}", "tester")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a project")


def snapshot(root: Path) -> Snapshot:
    files = {name: (root / name).read_text() for name in ("params.yaml", "data.dvc")}
    return Snapshot(git(root, "rev-parse", "HEAD"), files)


def registered(root: Path, says: str = FIRST) -> str:
    """Register a version by the functions of a retrain; return its run."""
    for folder in NETWORKS.values():
        (root / folder / "weights.safetensors").write_text(says)
    made_from = snapshot(root)
    run = runs.start_retrain(registry.open_store(root), made_from)
    runs.log_snapshot(root, run, made_from, describe_environment())
    register(root, made_from, run)
    runs.end_run(run, succeeded=True)
    return run


@contextmanager
def at_work_in(folder: Path, uri: str | None = None) -> Iterator[None]:
    """A process whose current folder it is, with the registry there or at an address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(uri or f"sqlite:///{folder}/mlruns/mlflow.db")
        mlflow.set_registry_uri(mlflow.get_tracking_uri())
        forget_artifacts()
        yield


def says(version: int) -> float:
    """What the model of a version, loaded as anybody would, says."""
    model = mlflow.pyfunc.load_model(f"models:/{names.MODEL}/{version}")
    return float(model.predict(pd.DataFrame({"dicom": [b"x"]}))["probability"][0])


def check_readable(run: str) -> None:
    """All of version 1 is there."""
    assert registry.read_artifact(run, registry.SNAPSHOT_ARTIFACT) is not None
    assert registry.read_artifact(run, "snapshot/nothing.json") is None
    assert registry.read_artifact(run, "nothing/at/all.json") is None
    found = registry.find_snapshot(registry.get_version(1))
    assert found is not None
    assert found.files["data.dvc"] == DATA
    assert registry.read_environment(registry.get_version(1)) == describe_environment()
    assert says(1) == float(FIRST)


def texts(root: Path) -> list[tuple[str, str, str]]:
    """Table, column and value of every text in the registry."""
    found = []
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as opened:
        tables = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = opened.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in rows.description]
            for row in rows:
                pairs = zip(names, row, strict=True)
                found += [(table, name, x) for name, x in pairs if isinstance(x, str)]
    return found


def of_this_machine(text: str) -> bool:
    """Whether a text has an absolute path, or a name of this machine's."""
    path = re.search(r"""(?:file:|(?:^|["'\s=,(\[]))/+\w""", text)
    return bool(path) or text == getpass.getuser() or tempfile.gettempdir() in text


def as_before(root: Path, clone: str) -> None:
    """Give the registry the rows that it had when addresses were absolute ones of `clone`."""
    folder = f"{clone}/mlruns/artifacts"
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as opened:
        for table, column in addresses._COLUMNS:
            opened.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ?",
                (f"file://{folder}/", len(addresses.TOP) + 1, f"{addresses.TOP}%"),
            )
        opened.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0",
            (f"{clone}/mlruns/0",),
        )
        opened.commit()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose version 1 was registered alone, before there was a server; not to be changed.

    Its name has what an address quotes.
    """
    root = tmp_path_factory.mktemp("alone") / "a clone & more"
    make_project(root)
    with at_work_in(root):
        registered(root)
    return root


@pytest.fixture
def clone(alone: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(alone, tmp_path / "clone", symlinks=True))


def run_of_version_1() -> str:
    return registry.read_run_id(registry.get_version(1))


def test_a_registration_leaves_no_path_and_no_name_of_this_machine(alone: Path) -> None:
    found = texts(alone)
    assert {"runs", "logged_models", "experiments", "model_versions", "datasets"} <= {
        table for table, _, _ in found
    }
    assert [text for text in found if of_this_machine(text[2])] == []
    [model] = (alone / "mlruns/artifacts/models").glob("*/artifacts/MLmodel")
    assert "model_code_path: flows/tracking/served_model.py" in model.read_text()
    assert [line for line in model.read_text().splitlines() if of_this_machine(line)] == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("/home/ann/x.py", True),
        ('{"uri": "/data/train.csv"}', True),
        ("file:///srv/x", True),
        ("mlflow-artifacts:/1/artifacts", False),
        ("models:/m-1", False),
        ("data/train.csv and 1/2", False),
    ],
)
def test_a_path_of_this_machine_would_be_found(text: str, is_one: bool) -> None:
    assert of_this_machine(text) == is_one


def test_alone_all_is_there_and_model_and_run_lie_beside_the_registry(alone: Path) -> None:
    with at_work_in(alone):
        check_readable(run_of_version_1())
        run = alone / "mlruns/artifacts" / run_of_version_1() / "artifacts"
    assert (run / "snapshot/snapshot.json").is_file()


def test_a_clone_that_was_moved_has_its_artifacts_and_takes_more(
    clone: Path, tmp_path: Path
) -> None:
    moved = clone.rename(tmp_path / "moved")
    with at_work_in(moved):
        check_readable(run_of_version_1())
        run = registered(moved, SECOND)
        assert says(2) == float(SECOND)
    assert (moved / "mlruns/artifacts" / run / "artifacts/snapshot/params.yaml").is_file()
    assert not clone.exists()


def test_what_is_done_in_a_copy_stays_in_the_copy(alone: Path, clone: Path) -> None:
    before = contents(alone)
    with at_work_in(clone):
        run = run_of_version_1()
        check_readable(run)
        MlflowClient().log_text(run, "by the copy", "note.txt")
        registered(clone, SECOND)
        assert says(2) == float(SECOND)
    assert (clone / "mlruns/artifacts" / run / "artifacts/note.txt").read_text() == "by the copy"
    after = contents(alone)
    assert [name for name in before | after if before.get(name) != after.get(name)] == []


def test_the_registry_of_a_clone_is_served_with_its_artifacts_and_takes_those_of_others(
    alone: Path, clone: Path, tmp_path: Path
) -> None:
    """Registered alone, then served; registered through the server, then read alone."""
    auditor, builder = tmp_path / "auditor", tmp_path / "builder"
    auditor.mkdir()
    shutil.copyfile(ROOT / "params.yaml", auditor / "params.yaml")
    git(auditor, "init", "-q")
    make_project(builder)
    artifacts = clone / "mlruns" / "artifacts"
    as_before(clone, "/srv/where it was")
    with serve_registry(clone, clone) as uri:
        with at_work_in(auditor, uri):
            run = run_of_version_1()
            check_readable(run)
            (auditor / "model").mkdir()
            listed, text, model, mine, other = plain(auditor, uri, run)
            record = audit(auditor, "1", load_params(), True, print)
            keep(auditor, record)
        with at_work_in(builder, uri):
            second = registered(builder, SECOND)
            assert (says(1), says(2)) == (float(FIRST), float(SECOND))
    # Of plain MLflow, on a machine without Mammoflow.
    assert "snapshot/snapshot.json" in listed
    assert json.loads(text)["files"]["data.dvc"] == DATA
    weights = Path(model) / "artifacts/predictor/detector/weights.safetensors"
    assert weights.is_relative_to(auditor)
    assert weights.read_text() == FIRST
    assert (artifacts / mine / "artifacts/note.txt").read_text() == "by a client"
    assert (artifacts / "0" / other / "artifacts/note.txt").is_file()
    # The audit went to the end, and its report to the server.
    assert "has the git tag model/v1" in record.sentence
    [report] = (artifacts / run / "artifacts/audits").glob("*/audit.json")
    assert json.loads(report.read_text())["verdict"] == record.verdict
    # Nothing of it to the clients' disks.
    assert {path.name for path in auditor.iterdir()} == {".git", "params.yaml", "model"}
    assert not (builder / "mlruns").exists()
    with at_work_in(clone):
        check_readable(run)
        assert says(2) == float(SECOND)
        assert (artifacts / second / "artifacts/environment.json").is_file()
        assert mlflow.artifacts.load_text(f"runs:/{mine}/note.txt") == "by a client"
    names = {name for _, name, text in texts(clone) if of_this_machine(text)}
    assert names <= {"value", "user_id", "source_name"}  # what plain MLflow says of its own run


def plain(folder: Path, uri: str, run: str) -> Any:
    """What plain MLflow finds through a server, as PLAIN prints it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PLAIN), run, str(folder / "model")],
        cwd=folder,
        env=environment({"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": ""}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_registry_from_before_is_mended_when_it_is_opened(clone: Path) -> None:
    as_before(clone, "/home/ann/where it was")
    elsewhere = "s3://bucket/x"
    own = "file:///home/ann/notebooks/mlruns/artefacts/1"
    with at_work_in(clone):
        client = MlflowClient()
        for name, location in (("on S3", elsewhere), ("by hand", own)):
            client.create_experiment(name, artifact_location=location)
        assert str(registry.get_version(1).source).startswith("models:/")
        with pytest.raises(UserError, match=r"has no snapshot/snapshot\.json"):
            registry.read_snapshot(registry.get_version(1))
        registry.open_store(clone)
    with at_work_in(clone):
        check_readable(run_of_version_1())
        registered(clone, SECOND)
        assert says(2) == float(SECOND)
        kept = {e.name: e.artifact_location for e in client.search_experiments()}
    assert kept == {
        "Default": "mlflow-artifacts:/0",
        registry.EXPERIMENT: "mlflow-artifacts:/",
        "on S3": elsewhere,
        "by hand": own,
    }
    assert {x for _, _, x in texts(clone) if of_this_machine(x)} == {own}


def test_an_audit_mends_a_registry_too_and_makes_no_experiment(clone: Path) -> None:
    as_before(clone, "/home/ann/clone")
    git(clone, "tag", "-d", "model/v1")
    with at_work_in(clone):
        record = audit(clone, "1", load_params(), True, print)
        keep(clone, record)
    assert not [x for x in record.findings if "snapshot.json" in x.sentence]
    assert "has the git tag model/v1" in record.sentence
    [report] = (clone / "mlruns/artifacts" / str(record.run) / "artifacts/audits").iterdir()
    assert (report / "index.html").is_file()
    assert not [x for _, _, x in texts(clone) if "/ann/" in x]


def test_what_a_copy_has_put_into_the_original_comes_home(alone: Path, tmp_path: Path) -> None:
    """As a copy once did: its registry had the original's addresses."""
    original = Path(shutil.copytree(alone, tmp_path / "original"))
    copy = Path(shutil.copytree(original, tmp_path / "copy"))
    with at_work_in(copy):
        run = run_of_version_1()
    as_before(copy, str(original))
    for folder in (run, "models"):
        shutil.rmtree(copy / "mlruns/artifacts" / folder)
    before = contents(original)
    with at_work_in(copy):
        registry.open_store(copy)
        check_readable(run)
    assert contents(original) == before
    assert {path.name for path in (copy / "mlruns/artifacts").iterdir()} == {run, "models"}


def test_many_may_open_a_registry_that_must_be_mended_at_once(clone: Path) -> None:
    as_before(clone, "/home/ann/clone")
    with at_work_in(clone), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(addresses.mend, [clone] * 8)) == [None] * 8
        check_readable(run_of_version_1())


def test_a_registry_that_cannot_be_mended_is_one_sentence_and_stays_as_it_is(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before(clone, "/home/ann/clone")
    before = texts(clone)
    file = clone / "mlruns" / "mlflow.db"
    monkeypatch.setattr(addresses, "PATIENCE", 0.1)
    with at_work_in(clone), closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"cannot be mended .*locked.*run this again"):
            addresses.mend(clone)
        other.rollback()
        # Half done is not done.
        other.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON model_versions "
            "BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
        other.commit()
        with pytest.raises(UserError, match=r"cannot be mended \(no more"):
            addresses.mend(clone)
    assert texts(clone) == before


def test_a_store_that_is_not_the_clones_own_is_left_alone(clone: Path, tmp_path: Path) -> None:
    as_before(clone, "/home/ann/clone")
    other = tmp_path / "other"
    other.mkdir()
    file = clone / "mlruns" / "mlflow.db"
    before = file.read_bytes()
    with at_work_in(other, f"sqlite:///{file}"):
        addresses.mend(other)
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        addresses.mend(clone)
    assert file.read_bytes() == before
    with at_work_in(other):
        addresses.mend(other)  # there is none
    assert list(other.iterdir()) == []


def test_an_environment_from_before_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = artifact_repository_registry._artifact_repository_registry._registry
    monkeypatch.setitem(known, "mlflow-artifacts", MlflowArtifactsRepository)
    with at_work_in(tmp_path), pytest.raises(UserError, match="renew it with `make env`"):
        registry.open_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_servers_own_registry_has_its_artifacts_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/x")
    with pytest.raises(UserError, match="set MLFLOW_BACKEND_STORE_URI as well, or neither"):
        wanted._check_store(tmp_path)


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("postgresql://ann:secret@db/mlflow", r"postgresql, which needs the package psycopg\[bin"),
        (
            "mysql+pymysql://ann:secret@db/mlflow",
            "mysql[+]pymysql, which needs the package pymysql",
        ),
        ("foo://ann:secret@db/mlflow", "no address of a database: .*foo"),
        ("db", "no address of a database"),
        ("postgresql://ann:secret@db:x/mlflow", "no address of a database"),
    ],
)
def test_a_store_that_python_cannot_speak_with_is_told_before_any_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, sentence: str
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", store)
    with pytest.raises(UserError, match=sentence) as told:
        wanted._check_store(tmp_path)
    assert "secret" not in str(told.value)


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1)))
def test_an_address_leads_into_the_folder_beside_the_file_or_nowhere(parts: list[str]) -> None:
    address = "mlflow-artifacts:/" + "/".join(map(quote, parts))
    inside, store = Path("/x y/mlruns/artifacts"), "sqlite:////x y/mlruns/mlflow.db"
    if not Path(os.path.normpath(inside.joinpath(*parts))).is_relative_to(inside):
        with pytest.raises(MlflowException, match="leads out of"):
            artifact_repository(address, store)
        return
    found = artifact_repository(address, store)
    assert isinstance(found, LocalArtifactRepository)
    assert Path(found.artifact_dir).is_relative_to(inside)
    if ".." not in parts:
        assert Path(found.artifact_dir) == inside.joinpath(*parts)


def test_an_address_that_names_a_server_and_a_store_of_a_server_are_the_servers() -> None:
    with pytest.raises(MlflowException, match="tracking URI must be a valid http"):
        artifact_repository("mlflow-artifacts://host:5000/1", "sqlite:///x.db")
    found = artifact_repository("mlflow-artifacts:/1/artifacts", "http://host:5000")
    assert found.artifact_uri == "http://host:5000/api/2.0/mlflow-artifacts/artifacts/1/artifacts"


def test_a_sqlite_store_has_a_file_and_another_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_file("sqlite:///mlruns/mlflow.db") == tmp_path / "mlruns" / "mlflow.db"
    assert sqlite_file("sqlite:////srv/a b.db") == Path("/srv/a b.db")
    for other in ("sqlite://", "postgresql://a@b/c", "http://host", "file:///srv/mlruns"):
        assert sqlite_file(other) is None


def test_the_plugin_brings_nothing_of_ours_into_a_process_that_loads_a_model() -> None:
    assert imports_of(ROOT / "mammoflow_artifacts.py") == set()
    assert locate_module(SERVING) not in (ROOT / "mammoflow_artifacts.py").read_text()
