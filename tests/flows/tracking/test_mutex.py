"""Of all clones that share a registry, one at a time holds a lock of it."""

import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.tracking import mutex
from flows.tracking.mutex import hold_across_clones
from flows.tracking.names import MODEL
from tests.support.small_project import store


@pytest.fixture(autouse=True)
def empty_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path)


def models() -> list[str]:
    return [model.name for model in MlflowClient().search_registered_models()]


def test_one_clone_at_a_time_holds_a_lock_and_no_model_stays_behind() -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with hold_across_clones("looks"):
            inside += 1
            most = max(most, inside)
            assert models() == [f"{MODEL}.looks.lock"]
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert models() == []


def test_a_lock_is_released_when_the_work_fails() -> None:
    with pytest.raises(KeyError), hold_across_clones("looks"):
        raise KeyError
    assert models() == []


def test_what_a_killed_holder_left_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutex, "ABANDONED_AFTER", 0.5)
    MlflowClient().create_registered_model(f"{MODEL}.looks.lock")
    with hold_across_clones("looks"):
        assert models() == [f"{MODEL}.looks.lock"]
    assert models() == []
