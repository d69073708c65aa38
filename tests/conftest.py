"""What holds for every test."""

import signal

import pytest


@pytest.hookimpl
def pytest_sessionstart() -> None:
    """Let Ctrl-C reach the tests' children, whoever started pytest.

    A shell without job control lets what it starts in the background ignore SIGINT, as `make test`
    does, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
