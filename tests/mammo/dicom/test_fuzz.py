"""A short run of the fuzzer: see fuzz_dicom for the long one."""

from pathlib import Path

import pytest

from mammo.dicom.errors import UnreadableDicom
from tests.support import fuzz_dicom
from tests.support.fuzz_dicom import fuzz, seeds


@pytest.mark.parametrize("syntax", list(seeds()))
def test_damaged_files_are_read_or_refused(syntax: str, tmp_path: Path) -> None:
    counts = {"files": 0, "read": 0, "peak": 0}
    assert list(fuzz(syntax, 200, tmp_path, counts)) == []
    assert counts["files"] == 200
    assert 0 < counts["read"] < 200


def test_the_fuzzer_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(error: Exception) -> None:
        def reader(content: bytes, long_side: int) -> None:
            raise error

        monkeypatch.setattr(fuzz_dicom, "read_mammogram", reader)

    wrong(UnreadableDicom("damaged"))
    assert fuzz_dicom.read(b"") is False
    wrong(UnreadableDicom("of 4711-0815"))
    with pytest.raises(AssertionError, match="4711"):
        fuzz_dicom.read(b"")
    wrong(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        fuzz_dicom.read(b"")
