"""What the benchmark of a GPU says of the machine; the rest of it needs a card."""

from pathlib import Path

import pytest

from benchmarks.gpu import is_kept_ready


@pytest.mark.parametrize(
    ("said", "ready"),
    [("Enabled", True), ("Enabled\nEnabled", True), ("Enabled\nDisabled", False), ("", False)],
)
def test_the_cards_are_kept_ready_if_the_driver_says_so_of_all(
    said: str, ready: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{said}\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert is_kept_ready() is ready


def test_without_nvidias_tool_nothing_is_known_to_be_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_kept_ready()
