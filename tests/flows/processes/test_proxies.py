"""A proxy that somebody has set does not stand before our own servers, and silence has an end."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import mlflow
import pytest
import requests
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.processes import proxies, reach, run_git
from mammo.base.errors import UserError
from tests.imports import ROOT

CLOSED = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens
NAMES = [
    spelling
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for spelling in (name, name.upper())
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test sets is taken back, also where the code under test set it."""
    for name in [*NAMES, *(proxies._LEFT_OUT + name for name in NAMES)]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


class Answers(BaseHTTPRequestHandler):
    """A server that is there."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class NobodyBehind(Answers):
    """A proxy that does not reach the server."""

    status = 504


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_loopback_takes_no_proxy(address: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, CLOSED)
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
    proxies.exempt(proxies.LOOPBACK)
    for url in (address, address.replace("127.0.0.1", "localhost")):
        assert httpx.get(url).is_success
        assert requests.get(url, timeout=10).ok


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "hospital.example"}, "hospital.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost, .a"}, "localhost,.a,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_hosts_that_were_exempt_stay_exempt(
    before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        proxies.exempt(proxies.LOOPBACK)
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == after


def test_no_proxy_in_small_and_in_capital_letters_each_keep_their_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "a")
    monkeypatch.setenv("NO_PROXY", "b")
    proxies.exempt(["c"])
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == ("a,c", "b,c")


def test_whoever_imports_flows_is_exempt_and_so_are_its_children() -> None:
    code = "import flows, subprocess; subprocess.run(['sh', '-c', 'echo $no_proxy $NO_PROXY'])"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HTTP_PROXY": CLOSED},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "127.0.0.1,localhost,::1 127.0.0.1,localhost,::1\n"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_a_socks_proxy_without_its_package_is_left_to_git(
    address: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:9")
    proxies.exempt(proxies.LOOPBACK)
    proxies.leave_out_socks()
    assert httpx.get(address).is_success
    assert "ALL_PROXY" not in os.environ
    assert run_git._make_environment()["ALL_PROXY"] == f"{scheme}://127.0.0.1:9"
    assert "ALL_PROXY is not used: a SOCKS proxy takes the package" in proxies.describe_proxies()


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def silence(uri: str) -> str:
    """What is said of an MLflow server that does not answer, within seconds."""
    mlflow.set_tracking_uri(uri)
    begun = time.monotonic()
    with pytest.raises(UserError) as told:
        reach.require_mlflow()
    assert time.monotonic() - begun < 30
    sentence = str(told.value)
    assert sentence.startswith(f"MLflow at {uri} failed (")
    assert sentence.endswith("; once it is back, run this again")
    return sentence


def test_an_mlflow_that_is_not_there_is_one_sentence(tracking: None) -> None:
    assert "refused" in silence(CLOSED)


def test_an_mlflow_that_takes_the_call_and_says_nothing_is_one_sentence(
    tracking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "no answer came in time" in silence(uri)


def test_a_proxy_that_answers_for_a_server_is_named(
    tracking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", CLOSED)
    assert "sets HTTP_PROXY: NO_PROXY can exempt" in silence("http://mlflow.example:5000")
    with ThreadingHTTPServer(("127.0.0.1", 0), NobodyBehind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
        assert "504 Gateway Timeout" in silence("http://mlflow.example:5000")
        server.shutdown()


def test_a_server_that_answers_and_a_store_without_one_are_let_pass(
    tracking: None, address: str, tmp_path: Path
) -> None:
    for uri in (address, f"{address}/", f"sqlite:///{tmp_path}/mlflow.db"):
        mlflow.set_tracking_uri(uri)
        reach.require_mlflow()


def test_a_prefect_that_is_not_there_is_one_sentence(address: str) -> None:
    told = pytest.raises(UserError, match=r"Prefect at http://127\.0\.0\.1:9/api failed .*refused")
    with temporary_settings({PREFECT_API_URL: f"{CLOSED}/api"}), told:
        reach.require_prefect()
    with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        reach.require_prefect()
