"""What is asked of a registry without MLflow is what MLflow itself says: file, database, server."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from flows.tracking import look_up
from flows.tracking.names import MODEL, MOVE
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.registry_server import serve_registry


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One registry three times: a file, a database of SQLAlchemy's, a server.

    Of its versions 1 to 4, 2 and 4 are deleted; 1 is champion, 4 was.
    """
    root = tmp_path_factory.mktemp("project")
    (root / "mlruns").mkdir()
    file = f"sqlite:///{root}/mlruns/mlflow.db"
    client = MlflowClient(file, file)
    client.create_registered_model(MODEL)
    for _ in range(4):
        client.create_model_version(MODEL, source="here")
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_registered_model_tag(MODEL, f"{MOVE}one", json.dumps({"version": 4}))
    for version in ("2", "4"):
        client.delete_model_version(MODEL, version)
    with serve_registry(root, ROOT) as url:
        yield [file, file.replace("sqlite:", "sqlite+pysqlite:"), url]


def test_versions_are_found_in_each_kind_of_registry(addresses: list[str]) -> None:
    for uri in addresses:
        for reference, number in {
            "1": 1,
            "3": 3,
            "champion": 1,
            "@champion": 1,
            f"{MODEL}/3": 3,
            "latest": None,
        }.items():
            assert look_up.find_number(uri, reference) == number, uri
        for missing in ("0", "2", "4", "99", "9" * 30, "nobody"):
            with pytest.raises(UserError) as told:
                look_up.find_number(uri, missing)
            assert str(told.value) == f"the registry {uri} has no {MODEL} {missing}"


def test_the_highest_number_counts_what_was_deleted(addresses: list[str]) -> None:
    assert [look_up.read_highest(uri) for uri in addresses] == [4, 4, 4]


def test_no_model_yet_is_no_version(
    addresses: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.db").touch()
    monkeypatch.setattr(look_up, "MODEL", "other-model")
    for kind in ("sqlite", "sqlite+pysqlite"):
        assert look_up.read_highest(f"{kind}:///{tmp_path}/empty.db") == 0
        with pytest.raises(UserError, match="has no other-model 1"):
            look_up.find_number(f"{kind}:///{tmp_path}/empty.db", "1")
    for uri in addresses:
        assert look_up.read_highest(uri) == 0


def test_a_database_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, and long enough to be seen as none" * 9)
    for kind in ("sqlite", "sqlite+pysqlite"):
        with pytest.raises(UserError, match=r"no\.db .*file is not a database"):
            look_up.read_highest(f"{kind}:///{tmp_path}/no.db")


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server in front of MLflow that wants a login of its own; it notes what came."""

    came: ClassVar[list[str | None]] = []
    status = 401
    body = b"log in"

    def do_GET(self) -> None:
        """Refuse."""
        self.came.append(self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def refusing(status: int, body: bytes) -> Iterator[str]:
    handler = type("Handler", (Refusing,), {"status": status, "body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b"log in"),
        (403, b'{"error_code": "PERMISSION_DENIED"}'),
        (200, b"<html>"),
        (404, b"[]"),
    ],
)
def test_what_a_server_does_not_say_is_left_to_mlflow(status: int, body: bytes) -> None:
    with refusing(status, body) as uri:
        assert look_up.find_number(uri, "1") is None
        assert look_up.find_number(uri, "champion") is None
        assert look_up.read_highest(uri) is None


def test_a_server_is_asked_with_mlflows_login(monkeypatch: pytest.MonkeyPatch) -> None:
    Refusing.came.clear()
    with refusing(401, b"no") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
        look_up.find_number(uri, "1")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        look_up.find_number(uri, "1")
    assert Refusing.came == ["Bearer abc", "Basic YW5uOnNlY3JldA=="]


def test_it_is_asked_without_mlflow() -> None:
    program = (
        "import sys\nfrom flows.tracking.look_up import find_number\n"
        "find_number('http://127.0.0.1:9', '1')\n"
        "print(*{'mlflow', 'prefect', 'torch', 'sqlalchemy'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == ""
