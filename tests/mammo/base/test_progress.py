"""Progress in a log is a line at every tenth."""

import pytest

from mammo.base.progress import track


@pytest.mark.parametrize(("total", "lines"), [(40, 10), (3, 3)])
def test_a_log_gets_a_line_at_every_tenth(
    total: int, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(track(range(total), "read", total)) == list(range(total))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert said[-1] == f"read: {total}/{total}"
