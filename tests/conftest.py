"""What holds for every test."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# How fast a busy machine is says nothing about a property.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

FOLDERS = {"whole": ("tests/flows/",), "processors": ("tests/test_proc", "tests/mammo/test_port")}
"""Where the tests of a group are: the Makefile looks nowhere else."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make sure that every test is in a group's folder, or in none of the groups."""
    for item in items:
        for group, folders in FOLDERS.items():
            if item.get_closest_marker(group) and not item.nodeid.startswith(folders):
                raise pytest.UsageError(
                    f"{item.nodeid}: marked {group}, where make test does not look"
                )


@pytest.hookimpl
def pytest_sessionstart() -> None:
    """Let Ctrl-C reach the tests' children, whoever started pytest.

    A shell without job control lets what it starts in the background ignore SIGINT, as `make test`
    does, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
