"""Whether the servers that the environment names answer at all; asked before any work.

Without this, their own clients would try again for many minutes and say nothing.
"""

import os
import socket
from urllib.parse import urlsplit

from flows.processes import proxies
from flows.processes.words import hide_password
from mammo.base.errors import UserError

CONNECT, ANSWER = 3.0, 6.0  # seconds; ten are too many

_GREETINGS = {"postgresql": b"\0\0\0\x08\x04\xd2\x16\x2f", "mysql": b""}
"""What makes a database say something: PostgreSQL's SSLRequest; MySQL's speaks first."""

_NO_SERVER = (502, 503, 504)  # what a proxy answers if the server behind it does not


def require_mlflow() -> None:
    """Make sure that the MLflow server answers, if there is one.

    Raises:
        UserError: if it does not.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    if urlsplit(uri).scheme in ("http", "https"):
        require_server(uri, "MLflow")


def require_server(uri: str, name: str) -> None:
    """Make sure that a server answers.

    Args:
        uri: its address, under which there is /health.
        name: for the sentence.

    Raises:
        UserError: if it does not.
    """
    if said := describe_silence(f"{uri.rstrip('/')}/health"):
        where = hide_password(uri)
        raise UserError(f"{name} at {where} failed ({said}); once it is back, run this again")


def require_prefect() -> None:
    """Make sure that the Prefect server of PREFECT_API_URL answers, if it is set.

    Raises:
        UserError: if it does not.
    """
    uri = _find_prefect()
    if uri and (said := describe_silence(f"{uri.rstrip('/')}/health")):
        raise UserError(
            f"Prefect at {uri} failed ({said}); once it is back, run this again, or without "
            f"PREFECT_API_URL for a temporary server"
        )


def require_shared_prefect() -> None:
    """Make sure that there is a Prefect server that workers know, too.

    Raises:
        UserError: if there is only a temporary one, or it does not answer.
    """
    if not _find_prefect():
        raise UserError(
            "stages in a pool need a Prefect server that their workers know: run `mammoflow up`, "
            "and set PREFECT_API_URL to the address that it prints"
        )
    require_prefect()


def _find_prefect() -> str | None:
    """The address of Prefect's server, if one is set."""
    if named := os.environ.get("PREFECT_API_URL"):
        return named  # to import Prefect takes a second, and its other settings give way to this
    from prefect.settings import PREFECT_API_URL

    address: str | None = PREFECT_API_URL.value()
    return address


def describe_silence(address: str) -> str:
    """Why there is no answer, in words; empty if there is an answer, whatever it is."""
    import requests  # not for every command

    try:
        with requests.get(address, timeout=(CONNECT, ANSWER), stream=True) as answer:
            if answer.status_code not in _NO_SERVER:
                return ""
            said = f"{answer.status_code} {answer.reason}"
    except requests.exceptions.SSLError:
        return ""  # a server answers; which certificates it accepts is the client's matter
    except requests.exceptions.Timeout:
        said = "no answer came in time"
    except requests.RequestException as error:
        said = _find_cause(error)
    return said + proxies.describe_proxies()


def describe_no_connection(host: str, port: int) -> str:
    """Why a host takes no connection, in words; empty if it takes one."""
    try:
        socket.create_connection((host, port), CONNECT).close()
    except OSError as error:
        return f"{host}, port {port}: {error}"
    return ""


def require_database(kind: str, host: str, port: int) -> None:
    """Make sure that a database server answers.

    Args:
        kind: `postgresql`, `mysql`, or another one, of which only a connection is asked.
        host: its name.
        port: its port.

    Raises:
        UserError: within ten seconds, if it does not.
    """
    try:
        with socket.create_connection((host, port), CONNECT) as connection:
            connection.settimeout(ANSWER)
            if kind in _GREETINGS:
                connection.sendall(_GREETINGS[kind])
                if not connection.recv(1):
                    raise ConnectionError("it ended the connection")
    except OSError as error:
        said = "no answer came in time" if isinstance(error, TimeoutError) else error
        raise UserError(
            f"the database at {host} does not answer ({said}); once it is back, run this again"
        ) from None


def _find_cause(error: BaseException) -> str:
    """The innermost reason, which is the most precise one."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__
