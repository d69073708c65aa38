"""Parts of messages."""

import pytest

from flows.processes.words import SHOWN, put_in_one_line, shorten_list, write_host


def test_a_long_list_is_cut_and_the_rest_is_counted() -> None:
    names = [f"n{number}" for number in range(SHOWN + 2)]
    assert shorten_list(names[:SHOWN]) == "n0, n1, n2, n3, n4"
    assert shorten_list(names) == "n0, n1, n2, n3, n4 and 2 more"


def test_what_an_error_says_in_several_lines_is_one_line() -> None:
    assert put_in_one_line(ValueError("fatal:\n  no\troute ")) == "fatal: no route"


@pytest.mark.parametrize(
    ("host", "written"), [("localhost", "localhost"), ("10.0.0.5", "10.0.0.5"), ("::1", "[::1]")]
)
def test_only_a_host_of_ipv6_stands_in_brackets(host: str, written: str) -> None:
    assert write_host(host) == written
