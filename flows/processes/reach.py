"""Whether the servers elsewhere that we are told to use answer at all, asked before any work.

Their own clients try again and again, for many minutes, in silence.
"""

from urllib.parse import urlsplit

from flows.processes import proxies
from mammo.base.errors import UserError

CONNECT, ANSWER = 3.0, 6.0  # seconds; ten are too many

_NOBODY_BEHIND = (502, 503, 504)  # a proxy's words for it


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
    if said := _silence(f"{uri.rstrip('/')}/health"):
        raise UserError(f"{name} at {uri} failed ({said}); once it is back, run this again")


def require_prefect() -> None:
    """Make sure that the Prefect server of PREFECT_API_URL answers, if it is set.

    Raises:
        UserError: if it does not.
    """
    from prefect.settings import PREFECT_API_URL

    uri = PREFECT_API_URL.value()
    if uri and (said := _silence(f"{uri.rstrip('/')}/health")):
        raise UserError(
            f"Prefect at {uri} failed ({said}); once it is back, run this again, or without "
            f"PREFECT_API_URL for a temporary server"
        )


def _silence(address: str) -> str:
    """Why there is no answer, in words; nothing if there is one, whatever it is."""
    import requests  # not for every command

    try:
        with requests.get(address, timeout=(CONNECT, ANSWER), stream=True) as answer:
            if answer.status_code not in _NOBODY_BEHIND:
                return ""
            said = f"{answer.status_code} {answer.reason}"
    except requests.exceptions.SSLError:
        return ""  # somebody is there; the client knows which certificates count
    except requests.exceptions.Timeout:
        said = "no answer came in time"
    except requests.RequestException as error:
        said = _cause(error)
    return said + proxies.in_words()


def _cause(error: BaseException) -> str:
    """The innermost reason, which is the one that tells something."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__
