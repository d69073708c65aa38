"""Where a training stage keeps what it goes on from, if it is cut short."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from stages import train_classifier, train_detector, tune_classifier


@pytest.mark.parametrize("value", [None, "", "elsewhere"])
@pytest.mark.parametrize("stage", [train_detector, tune_classifier, train_classifier])
def test_an_empty_variable_names_no_folder(
    stage: ModuleType, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    changes: dict[str, Callable[..., object]] = {
        "load_params": lambda: SimpleNamespace(seed=1, threads=1),
        "pin": lambda *settings: None,
        "fresh_folder": nullcontext,
        "run": lambda *arguments: taken.append(arguments[-1]),
    }
    for name, change in changes.items():
        monkeypatch.setattr(stage, name, change)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAMMOFLOW_CHECKPOINTS", raising=False)
    if value is not None:
        monkeypatch.setenv("MAMMOFLOW_CHECKPOINTS", value)
    stage.main()
    assert taken == [Path(value or "checkpoints") / stage.OUT.name]
