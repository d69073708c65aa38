"""Whether the servers that the environment names answer at all; asked before any work.

Without this, their own clients would try again for many minutes and say nothing.
"""

from urllib.parse import urlsplit

from flows.processes import proxies
from mammo.base.errors import UserError

CONNECT, ANSWER = 3.0, 6.0  # seconds; ten are too many

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
    if said := _describe_silence(f"{uri.rstrip('/')}/health"):
        raise UserError(f"{name} at {uri} failed ({said}); once it is back, run this again")


def require_prefect() -> None:
    """Make sure that the Prefect server of PREFECT_API_URL answers, if it is set.

    Raises:
        UserError: if it does not.
    """
    from prefect.settings import PREFECT_API_URL

    uri = PREFECT_API_URL.value()
    if uri and (said := _describe_silence(f"{uri.rstrip('/')}/health")):
        raise UserError(
            f"Prefect at {uri} failed ({said}); once it is back, run this again, or without "
            f"PREFECT_API_URL for a temporary server"
        )


def _describe_silence(address: str) -> str:
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


def _find_cause(error: BaseException) -> str:
    """The innermost reason, which is the most precise one."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__
