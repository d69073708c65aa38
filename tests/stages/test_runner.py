"""A stage's faults that people can mend end in one line."""

import errno

import pytest

from mammo.base.errors import UserError
from stages.runner import run_stage


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (UserError("x.csv: is empty"), "error: x.csv: is empty\n"),
        (OSError(errno.ENOSPC, "No space", "x.csv"), "error: the disk is full while writing x.csv"),
        (OSError(errno.ENOSPC, "No space"), "error: the disk is full: free"),
    ],
)
def test_a_fault_that_can_be_mended_is_one_line(
    fault: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise fault

    with pytest.raises(SystemExit) as end:
        run_stage(main)
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1


def test_other_faults_keep_their_traceback() -> None:
    def main() -> None:
        raise OSError(errno.EACCES, "Permission denied", "x.csv")

    with pytest.raises(PermissionError):
        run_stage(main)
