"""What cannot begin is told at once: exit status 2, one sentence, and nothing was made."""

import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import typer
from dvc.repo import Repo
from typer.testing import CliRunner

from flows.cli.app import app
from flows.pipeline.lock_and_cache import open_cache
from flows.processes import dvc_remote, reach
from flows.processes.run_git import git
from flows.snapshots.snapshot import capture, write_tag
from flows.tracking import preflight
from flows.tracking.find_version import find_version
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.signed_project import make_repository
from tests.support.small_project import make_environment, store

BOUND = 5.0
"""Seconds of processor time, from the start of Python: at most 1.5 were used in November 2026 on a
machine at rest, 2.1 on a busy one. Imports of MLflow, Prefect and torch would add more.
"""

NEEDS = {
    # command: what it looks for before anything else, and an example of its arguments
    "retrain": ("project, git, server", ()),
    "audit": ("project, git, registry, server", ("99",)),
    "audits": ("registry, server", ("99",)),
    "publish": ("project, git, registry, server", ("99",)),
    "fingerprint": ("project", ()),
    "verify": ("project, git, registry, server", ("99",)),
    "documents": ("project, git, registry, server", ("99",)),
    "keys new": ("project, git", ("ann", "--role", "builder")),
    "keys list": ("project, git", ()),
    "keys withdraw": ("project, git", ("ann",)),
    "evidence sign": ("project, git, registry, server", ("99",)),
    "evidence export": ("project, git, registry, server", ("99", "new")),
    "up": ("project, git", ()),
    "gc": ("project, git, registry, server", ()),
    "promote": ("project, git, registry, server", ("99",)),
    "rollback": ("project, git, registry, server", ("--reason", "because")),
    "aliases": ("registry, server", ()),
    "looks": ("project, git, registry, server", ()),
    "predict": ("registry, server", ("params.yaml", "--model", "99")),
    "serve": ("registry, server", ("--model", "99")),
    "listen": ("registry, server", ("spool", "--return", "pacs:104:PACS", "--model", "99")),
    "export": ("registry, server", ("new", "--model", "99")),
    "params use": ("project", (str(ROOT / "recipes" / "rsna.yaml"),)),
    "data add": ("project, git", ("new_exams",)),
}
ELSEWHERE = {
    "params check": "reads the files that it is given, wherever they are",
    "data check": "reads a folder, and the settings beside it",
    "data phantom": "writes a folder, anywhere",
    "data mini-mias": "makes one folder of another, anywhere",
    "data cbis-ddsm": "makes one folder of another, anywhere",
    "data cbis-masses": "makes one folder of another, anywhere",
}
"""Commands that need neither a project nor a registry, and why."""


def needing(what: str) -> list[str]:
    return [name for name, (needs, _) in NEEDS.items() if what in needs]


def arguments_of(name: str) -> list[str]:
    return [*name.split(), *NEEDS[name][1]]


def test_every_command_is_in_one_of_the_tables() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found = set()
    for name, command in group.commands.items():
        below = getattr(command, "commands", None)
        found |= {name} if below is None else {f"{name} {sub}" for sub in below}
    assert found == NEEDS.keys() | ELSEWHERE.keys()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with what the preflight looks for; no registry, no server."""
    project = tmp_path_factory.mktemp("made") / "project"
    (project / "mammo").mkdir(parents=True)
    git(project, "init", "-q", "-b", "main")
    git(project, "config", "user.name", "Tester")
    git(project, "config", "user.email", "tester@localhost")
    Repo.init(str(project)).close()
    (project / "mammo" / "science.py").write_text("ANSWER = 42\n")
    (project / "dvc.yaml").write_text("stages:\n  one:\n    cmd: 'true'\n    meta: {pool: gpu}\n")
    for name in ("params.yaml", "plan.yaml", "prefect.yaml"):
        shutil.copyfile(ROOT / name, project / name)
    out = f"{{md5: {'0' * 32}.dir, hash: md5, path: data}}"
    (project / "data.dvc").write_text(f"outs:\n- {out}\n")
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    (project / "new_exams").mkdir()
    git(project, "add", "-A")
    git(project, "commit", "-qm", "a project")
    return project


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, in which the command is started."""
    project = Path(shutil.copytree(made, tmp_path / "project"))
    monkeypatch.chdir(project)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlruns/mlflow.db")
    return project


@contextmanager
def listening() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with listening() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def empty(root: Path) -> Path:
    """The project with a registry in which there is nothing yet."""
    (root / "mlruns").mkdir()
    store(root)
    return root


def listing(root: Path) -> set[Path]:
    """Everything in a folder, except what git and DVC keep for themselves."""
    theirs = root / ".dvc" / "tmp"
    return {
        path
        for path in root.rglob("*")
        if ".git" not in path.parts and not path.is_relative_to(theirs)
    }


def refused(root: Path, *arguments: str) -> str:
    before = listing(root)
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: "), result.output
    assert result.output == result.stderr
    assert result.output.count("\n") == 1
    assert listing(root) == before
    return result.output


@pytest.mark.parametrize("name", needing("project"))
def test_outside_a_project_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is no project of Mammoflow, it has no dvc.yaml: go to" in refused(
        tmp_path, *arguments_of(name)
    )


def test_without_git_there_is_no_project(tmp_path: Path, root: Path) -> None:
    (root / ".git").rename(tmp_path / "away")
    for name in needing("git"):
        assert "git has no commit in" in refused(root, *arguments_of(name))


def test_without_a_registry_there_is_nothing_to_look_at(root: Path) -> None:
    for name in needing("registry"):
        said = refused(root, *arguments_of(name))
        assert "there is no registry" in said
        assert "set MLFLOW_TRACKING_URI to the team's, or begin one with `mammoflow ret" in said


def test_a_registry_that_is_silent_is_named(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER", 0.1)  # of six
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent.replace("//", "//ann:secret@"))
    for name in needing("server"):
        said = refused(root, *arguments_of(name))
        assert f"MLflow at {silent} failed (no answer came in time" in said


def test_the_whole_wait_is_less_than_ten_seconds() -> None:
    assert reach.CONNECT + reach.ANSWER < 10


def test_a_version_that_is_not_there_is_named(empty: Path) -> None:
    for name in needing("registry"):
        if "99" in NEEDS[name][1]:
            said = refused(empty, *arguments_of(name))
            assert "99" in said
            assert " has no " in said


def test_a_typing_error_is_told_before_any_server(empty: Path) -> None:
    cases = {
        ("rollback", "--reason", " "): "the reason is empty",
        ("rollback", "--reason", "because"): "has no `previous` to return to",
        ("promote", "99", "--reason", ""): "99",
        ("retrain", "--pool", "typo"): "no stage of dvc.yaml wants the pool typo, only gpu",
        ("retrain", "--pool", "gpu"): "through DVC's default remote, and there is none",
        ("up", "--workers", "tpu"): "there is no pool tpu, only cpu, gpu",
        ("up", "--without", "tpu"): "there is no pool tpu, only cpu, gpu",
        ("up", "--workers", "gpu"): "a worker alone needs PREFECT_API_URL",
        ("keys", "new", "Ann", "--role", "builder"): "'Ann' is no name of a key",
        ("keys", "new", "ann", "--role", "boss"): "'boss' is no role",
        ("keys", "withdraw", "ann"): "keys/ has no key 'ann'",
        ("listen", "spool", "--return", "pacs"): "name the node as HOST:PORT:AE",
        ("predict", "nosuch"): "nosuch",
        ("params", "use", "nosuch.yaml"): "nosuch.yaml",
        ("params", "check", "nosuch.yaml"): "nosuch.yaml: there is no such file",
        ("data", "check", "nosuch"): "nosuch: there is no such folder",
        ("data", "add", "nosuch"): "nosuch: there is no such folder",
        ("data", "mini-mias", "nosuch", "new"): "nosuch: there is no such folder",
        ("data", "cbis-ddsm", "nosuch", "new"): "nosuch: there is no such folder",
        ("data", "cbis-masses", "nosuch", "new"): "nosuch: there is no such folder",
        ("data", "mini-mias", "new_exams", "mammo"): "mammo: it is there already",
        ("data", "phantom", "mammo"): "mammo: it is there already",
        ("export", "mammo"): "mammo: it is there already",
        ("evidence", "export", "1", "mammo"): "mammo: there is something in it already",
        ("documents", "1", "--out", "mammo"): "mammo: there is something in it already",
    }
    for arguments, sentence in cases.items():
        assert sentence in refused(empty, *arguments)


def test_a_folder_that_cannot_be_written_is_told_first(empty: Path) -> None:
    (empty / "taken").write_text("")
    for arguments in (
        ("audit", "1", "--report"),
        ("documents", "1", "--out"),
        ("evidence", "export", "1"),
        ("predict", "params.yaml", "--out"),
        ("predict", "params.yaml", "--dicom"),
        ("export",),
        ("data", "phantom"),
        ("data", "mini-mias", "new_exams"),
    ):
        assert "taken/v1: no file can be written there" in refused(empty, *arguments, "taken/v1")
    spool = ("listen", "taken/v1", "--return", "pacs:104:PACS")
    assert "taken/v1: no file can be written there" in refused(empty, *spool)


def test_settings_are_needed_to_check_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "params.yaml" in refused(tmp_path, "data", "check", ".")


def test_a_port_that_is_no_number_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", "many")
    assert "MLFLOW_PORT is many: name a port" in refused(root, "up")


def test_code_that_is_not_committed_is_told_before_any_server(root: Path) -> None:
    (root / "mammo" / "science.py").write_text("ANSWER = 43\n")
    assert "the code is not committed: mammo/science.py" in refused(root, "retrain")


def test_settings_that_are_wrong_are_told_before_any_server(root: Path) -> None:
    (root / "params.yaml").write_text("seed: twenty\n")
    for name in ("retrain", "fingerprint"):
        assert "params.yaml" in refused(root, name)


def test_data_that_are_not_those_of_data_dvc_are_told_before_any_server(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "train.csv").write_text("other\n")
    for arguments in (("retrain",), ("data", "add", "new_exams")):
        assert "data/ is not what data.dvc names: run `dvc add data`" in refused(root, *arguments)
    (root / "data.dvc").unlink()
    assert "data.dvc is missing" in refused(root, "retrain")


def test_a_dvc_lock_that_was_cut_short_is_left_to_the_retrain_which_mends_it(root: Path) -> None:
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  one:\n    cm")
    preflight.check_pools(root, ["typo"])
    preflight.check_data(root)


def test_tags_of_another_registry_are_told_before_any_server(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git(root, "tag", "model/v3") == ""
    said = refused(root, "retrain")  # it has no registry yet
    assert "git has the tag model/v3, and the registry sqlite:///mlruns/mlflow.db has no" in said
    client = store(root)
    client.create_registered_model("mammogram-classifier")
    for _ in range(2):
        client.create_model_version("mammogram-classifier", source="here")
    assert "git has the tag model/v3, and the registry" in refused(root, "retrain")
    client.create_model_version("mammogram-classifier", source="here")
    preflight.check_tags(root)
    client.delete_model_version("mammogram-classifier", "3")
    preflight.check_tags(root)  # MLflow gives its number to no other
    (tmp_path / "no.db").write_text("this is no database, and long enough to be seen as none" * 9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no.db")
    assert "no.db is no registry (file is not a database)" in refused(root, "retrain")
    with closing(sqlite3.connect(tmp_path / "new.db")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    (tmp_path / "new.db").touch()
    with pytest.raises(UserError, match=r"model/v3"):
        preflight.check_tags(root)


def test_a_disk_without_room_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MINIMUM", 10**18)
    for arguments in (("retrain",), ("data", "add", "new_exams")):
        said = refused(root, *arguments)
        assert "GB free, and this may take 1000000000.0 GB: free space" in said
    with pytest.raises(UserError, match="free space"):
        preflight.check_disk(root, 5)


@pytest.mark.parametrize(
    ("scheme", "package"),
    [
        ("postgresql", "'psycopg[binary]'"),
        ("postgresql+psycopg2", "psycopg2"),
        ("mysql+pymysql", "pymysql"),
    ],
)
def test_a_database_that_python_cannot_speak_with_is_told_by_every_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # whoever has it sees this, too
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://ann:secret@127.0.0.1:9/mlflow")
    for name in needing("server"):
        said = refused(root, *arguments_of(name))
        assert f"MLFLOW_TRACKING_URI is an address of {scheme}, which needs the package" in said
        assert f"run `uv pip install --constraint requirements.lock {package}`" in said
        assert "secret" not in said


def test_a_database_that_is_away_or_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "ANSWER", 0.1)
    with pytest.raises(UserError, match=r"database at 127\.0\.0\.1 does not answer \(.*refused"):
        reach.require_database("mssql", "127.0.0.1", 9)
    for kind in ("postgresql", "mysql"):
        with (
            listening() as port,
            pytest.raises(UserError, match=r"does not answer \(no answer came in time\)"),
        ):
            reach.require_database(kind, "127.0.0.1", port)


def test_a_database_that_says_something_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"
                connection.sendall(b"N")

        thread = threading.Thread(target=answer)
        thread.start()
        reach.require_database("postgresql", "127.0.0.1", server.getsockname()[1])
        thread.join()


def set_remote(root: Path, url: str, more: str = "") -> None:
    (root / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = team\n['remote \"team\"']\n    url = {url}\n{more}"
    )


def register_one(root: Path) -> None:
    """A version, which is champion."""
    client = store(root)
    client.create_registered_model("mammogram-classifier")
    client.create_model_version("mammogram-classifier", source="here")
    client.set_registered_model_alias("mammogram-classifier", "champion", "1")


def test_a_version_is_found_in_the_tables_as_mlflow_finds_it(empty: Path) -> None:
    register_one(empty)
    client = store(empty)
    for _ in range(2):
        client.create_model_version("mammogram-classifier", source="here")
    client.set_registered_model_alias("mammogram-classifier", "previous", "3")
    client.delete_model_version("mammogram-classifier", "2")
    for reference, number in {
        "1": 1,
        "champion": 1,
        "@champion": 1,
        "mammogram-classifier@previous": 3,
        "mammogram-classifier/3": 3,
    }.items():
        assert preflight.check_version(reference) == number
        assert int(find_version(reference).version) == number
    for reference in ("2", "99", "nobody", "other@champion", "abc!"):
        with pytest.raises(UserError) as told:
            preflight.check_version(reference)
        with pytest.raises(UserError) as asked:
            find_version(reference)
        assert str(asked.value).startswith(str(told.value))


@pytest.mark.parametrize("uri", ["htp://server:5000", "mlruns/mlflow.db", "file:///srv/mlruns"])
def test_an_address_of_no_known_kind_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in needing("registry"):
        said = refused(root, *arguments_of(name))
        assert f"MLFLOW_TRACKING_URI is {uri}, which is no address of a registry" in said
        assert "http, https, sqlite, postgresql" in said


def test_a_silent_remote_of_git_is_told_in_time_where_the_tag_is_missing(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(root, "remote", "add", "origin", f"{silent}/repository.git")
    monkeypatch.setattr(preflight, "_PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"git ls-remote in .* did not end within 0\.5 s"):
        preflight.check_tag(root, 1)
    with pytest.raises(UserError, match="git ls-remote"):
        preflight.check_git_remote(root, "origin")
    git(root, "tag", "model/v1")
    preflight.check_tag(root, 1)  # nobody needs to be asked


def test_a_database_of_prefect_that_is_away_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_SERVER_API_PORT", "MLFLOW_PORT"):
        monkeypatch.setenv(name, "0")
    store_ = "postgresql+asyncpg://ann:secret@127.0.0.1:9/prefect"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", store_)
    said = refused(root, "up")
    assert "the database at 127.0.0.1 does not answer" in said
    assert "secret" not in said


REMOTE = [("audit", "1"), ("audit", "@champion", "--quick"), ("publish", "1"), ("gc", "--remote")]
"""Commands that cannot do without DVC's remote."""


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("hdfs://namenode/dvc", "the package dvc-hdfs: run `uv pip install --constraint req"),
        ("/dev/null/dvc", "/dev/null is no folder"),
        ("http://127.0.0.1:9/dvc", "Connection refused"),
    ],
)
def test_a_remote_of_dvc_that_cannot_be_used_is_told_by_those_that_need_it(
    empty: Path, url: str, why: str
) -> None:
    register_one(empty)
    set_remote(empty, url)
    for arguments in REMOTE:
        said = refused(empty, *arguments)
        assert said.startswith("error: DVC's remote team cannot be used from this clone: ")
        assert why in said


def test_the_remote_is_not_asked_if_the_cache_has_all_of_it_first_weights_too(
    tmp_path: Path, root: Path
) -> None:
    project = tmp_path / "records"
    make_repository(project)
    write_tag(project, capture(project), "model/v1", "version 1")
    set_remote(project, "/dev/null/dvc")
    cache = open_cache(project)
    for md5 in ("a" * 32, f"{'b' * 32}.dir", f"{'d' * 32}.dir"):
        cache.path(md5).parent.mkdir(parents=True, exist_ok=True)
        cache.path(md5).write_bytes(b"")
    with pytest.raises(UserError, match="/dev/null is no folder"):
        preflight.check_objects(project, 1)
    first = cache.path("e" * 32)
    first.parent.mkdir()
    first.write_bytes(b"")
    preflight.check_objects(project, 1)
    with pytest.raises(UserError, match="/dev/null is no folder"):
        preflight.check_objects(project, None)


def test_a_remote_that_is_silent_is_named_within_ten_seconds(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER", 0.1)
    set_remote(root, f"{silent}/dvc")
    with pytest.raises(UserError, match="team cannot be used from this clone: no answer"):
        dvc_remote.require_default_remote(root)


def test_the_server_of_an_s3_remote_is_asked(
    root: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER", 0.1)
    monkeypatch.setattr(dvc_remote, "find_spec", lambda _: True)  # as if dvc-s3 were there
    set_remote(root, "s3://bucket/dvc", f"    endpointurl = {silent}\n")
    with pytest.raises(UserError, match="no answer came in time"):
        dvc_remote.require_default_remote(root)
    set_remote(root, "s3://bucket/dvc")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    dvc_remote.require_default_remote(root)  # where that is, only its own library knows
    monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
    with pytest.raises(UserError, match="no answer came in time"):
        dvc_remote.require_default_remote(root)


def test_the_server_of_an_ssh_remote_is_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_remote, "find_spec", lambda _: True)  # as if dvc-ssh were there
    with listening() as port:
        set_remote(root, f"ssh://127.0.0.1:{port}/srv/dvc")
        dvc_remote.require_default_remote(root)
    with pytest.raises(UserError, match=rf"127\.0\.0\.1, port {port}: .*refused"):
        dvc_remote.require_default_remote(root)


def test_a_folder_that_dvc_can_make_is_a_remote(root: Path, tmp_path: Path) -> None:
    set_remote(root, "../../not_yet/there")  # from where the configuration lies
    dvc_remote.require_default_remote(root)
    found = dvc_remote.find_default_remote(root)
    assert found is not None
    assert Path(found.url) == tmp_path / "not_yet" / "there"
    (root / ".dvc" / "config.local").write_text("[core]\n    remote = gone\n")
    with pytest.raises(UserError, match="DVC's default remote is gone, and its configuration has"):
        dvc_remote.require_default_remote(root)
    (root / ".dvc" / "config.local").write_text("[core]\n    nonsense = 1\n")
    with pytest.raises(UserError, match="DVC's configuration: "):
        dvc_remote.require_default_remote(root)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("retrain", "--pool", "typo"), "wants the pool typo"),
        (("retrain",), "data/ is not what data.dvc names"),
        (("up", "--workers", "tpu"), "there is no pool tpu"),
        (("gc",), "there is no registry"),
        (("audit", "1"), "there is no registry"),
        (("audit", "abc!"), "'abc!' is no version"),
        (("audit", "99"), "has no mammogram-classifier 99"),
        (("promote", "99"), "has no mammogram-classifier 99"),
        (("publish", "99"), "has no mammogram-classifier 99"),
        (("serve", "--model", "99"), "has no mammogram-classifier 99"),
        ((*arguments_of("listen")[:-1], "99"), "has no mammogram-classifier 99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "told",
)
def test_it_imports_nothing_that_takes_seconds(
    root: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """As a user starts it; in processor time, since a machine may be busy with other things."""
    (root / "data").mkdir()
    if arguments[-1] in ("99", "abc!"):
        (root / "mlruns").mkdir()
        register_one(root)
    before, began = listing(root), _used()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=root,
        env=make_environment(ROOT),
        capture_output=True,
        text=True,
    )
    used = _used() - began
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert listing(root) == before
    assert used < BOUND


def _used() -> float:
    """Seconds of processor time of the children that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime
