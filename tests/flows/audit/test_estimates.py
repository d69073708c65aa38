"""What an audit says it will need: bytes by DVC's own files, minutes by earlier runs."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import mlflow
import pytest
import yaml
from dvc.repo import Repo
from mlflow.entities import Run

from flows.audit.audit import _find_absent, _say_minutes, _say_needs
from flows.audit.provenance import estimate_minutes
from flows.audit.subject import Subject
from flows.pipeline.lock_and_cache import Cache, open_cache, read_sizes
from mammo.base.errors import UserError
from tests.support.small_project import store

MINUTE = 60_000  # milliseconds


def test_a_folder_of_which_only_the_list_is_there_is_needed_and_so_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Repo.init(str(tmp_path), no_scm=True).close()
    cache = open_cache(tmp_path)
    (listing, md5), whole = (put(cache, b'[{"md5": "%s", "relpath": "a"}]' % (b"a" * 32))), "c" * 32
    entries = [
        {"path": "outputs/folder", "md5": f"{md5}.dir", "size": 3_000_000},
        {"path": "outputs/file", "md5": whole, "size": 500_000},
    ]
    listing.rename(f"{listing}.dir")
    lock = yaml.safe_dump({"stages": {"one": {"outs": entries}}})
    (tmp_path / "dvc.lock").write_text(lock)
    outs = {entry["path"]: entry["md5"] for entry in entries}
    made = SimpleNamespace(
        root=tmp_path,
        cache=cache,
        objects=outs,
        read_sizes=lambda: read_sizes(tmp_path, ["dvc.lock"]),
    )
    subject = cast("Subject", made)
    said: list[str] = []
    _say_needs(subject, _find_absent(subject), True, said.append)
    assert said == ["needs 3.5 MB that DVC's cache lacks, and there is no remote"]
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    no_scm = True\n    remote = team\n['remote \"team\"']\n    url = /srv/dvc\n"
    )
    put(cache, b"", "a" * 32)
    _say_needs(subject, _find_absent(subject), True, said.append)
    assert said[1:] == ["needs 0.5 MB from DVC's remote"]


def put(cache: Cache, content: bytes, name: str = "") -> tuple[Path, str]:
    """Put a file into the cache, under its hash or another one."""
    md5 = name or hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = cache.path(md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path, md5


@pytest.fixture
def experiment(empty_registry: Path) -> Iterator[str]:
    client = store(empty_registry)
    name = client.create_experiment(f"retrain {time.monotonic_ns()}")
    yield name
    client.delete_experiment(name)


def log_retrain(experiment: str, start: int, **stages: tuple[str, int]) -> Run:
    """A retrain's run in MLflow, with a run below it for each stage: its fate, and its minutes."""
    client = mlflow.MlflowClient()
    parent = client.create_run(experiment, start_time=start * MINUTE)
    for stage, (fate, minutes) in stages.items():
        tags = {"mlflow.parentRunId": parent.info.run_id, "stage": stage, "fate": fate}
        child = client.create_run(experiment, start_time=start * MINUTE, tags=tags)
        client.set_terminated(child.info.run_id, end_time=(start + minutes) * MINUTE)
    return client.get_run(parent.info.run_id)


def test_the_minutes_are_those_of_the_stages_that_made_the_version(experiment: str) -> None:
    run = log_retrain(experiment, 100, split=("ran", 1), train=("ran", 7))
    assert estimate_minutes(run) == (8, [])


def test_a_stage_that_did_not_run_takes_what_it_took_when_it_ran_last(experiment: str) -> None:
    log_retrain(experiment, 100, split=("ran", 3), train=("ran", 7))
    log_retrain(experiment, 200, split=("ran", 5), train=("cached", 0))
    run = log_retrain(experiment, 300, split=("unchanged", 0), train=("ran", 9))
    assert estimate_minutes(run) == (14, [])


def test_a_stage_that_nobody_saw_run_is_named(experiment: str) -> None:
    run = log_retrain(experiment, 100, split=("cached", 0), train=("ran", 7))
    assert estimate_minutes(run) == (7, ["split"])


def test_minutes_are_said_in_words_and_so_is_what_nobody_knows(experiment: str) -> None:
    run = log_retrain(experiment, 100, split=("cached", 0), train=("ran", 7), report=("ran", 1))
    said: list[str] = []
    _say_minutes(cast("Subject", SimpleNamespace(run=run, pretraining=[])), said.append)
    assert said == [
        "needs about 8 minutes, as the stages took when they ran before",
        "needs the time of split, too, which was not recorded",
    ]


def test_the_bytes_are_those_of_locks_and_of_dvc_files(tmp_path: Path) -> None:
    (tmp_path / "pretraining").mkdir()
    (tmp_path / "weights").mkdir()
    out = {"path": "outputs/model", "md5": "a" * 32, "size": 5}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": [out]}}}))
    made = {"path": "weights/backbone.safetensors", "md5": "b" * 32, "size": 7}
    lock = tmp_path / "pretraining/dvc.lock"
    lock.write_text(yaml.safe_dump({"stages": {"pretrain": {"outs": [made]}}}))
    first = {"path": "start.safetensors", "md5": "c" * 32, "size": 11}
    (tmp_path / "weights/start.safetensors.dvc").write_text(yaml.safe_dump({"outs": [first]}))
    files = ["dvc.lock", "pretraining/dvc.lock", "weights/start.safetensors.dvc", "data.dvc"]
    assert read_sizes(tmp_path, files) == {"a" * 32: 5, "b" * 32: 7, "c" * 32: 11}
    lock.write_text("stages: 3")
    with pytest.raises(UserError, match=r"pretraining/dvc\.lock: not what DVC writes"):
        read_sizes(tmp_path, files)
