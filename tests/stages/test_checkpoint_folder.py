"""Where a training stage keeps what it goes on from, if it is cut short."""

from pathlib import Path

import pytest

from stages.runner import keep_checkpoint_folder


@pytest.mark.parametrize("value", [None, "", "elsewhere"])
def test_an_empty_variable_names_no_folder(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAMMOFLOW_CHECKPOINTS", raising=False)
    if value is not None:
        monkeypatch.setenv("MAMMOFLOW_CHECKPOINTS", value)
    with keep_checkpoint_folder("tune_classifier") as folder:
        assert folder == Path(value or "checkpoints") / "tune_classifier"
