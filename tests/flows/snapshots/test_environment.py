"""What a model was made in is recorded, and each difference is named with what it can do."""

import os
import platform
from pathlib import Path

import pytest

from flows.snapshots.environment import (
    Environment,
    compare,
    describe_environment,
    name_licence,
    read_locked_packages,
)
from tests.imports import ROOT

NOW = describe_environment()
LOCK = read_locked_packages((ROOT / "requirements.lock").read_text())


def test_an_environment_does_not_differ_from_itself() -> None:
    assert compare(NOW, NOW, LOCK) == []


def test_an_environment_read_from_its_json_is_the_same() -> None:
    assert Environment.model_validate_json(NOW.model_dump_json()) == NOW


def test_an_environment_holds_what_can_move_bits_and_no_name_of_a_person_or_machine() -> None:
    assert NOW.packages["torch"]
    assert NOW.python == platform.python_version()
    assert "mammoflow" not in NOW.packages


def test_this_environment_is_what_the_lock_file_names() -> None:
    assert LOCK["torch"] == NOW.packages["torch"]
    assert compare(None, NOW, LOCK) == []


def test_another_version_of_a_package_that_a_stage_uses_can_move_bits() -> None:
    then = NOW.model_copy(update={"packages": {**NOW.packages, "numpy": "1.0"}})
    (found,) = compare(then, NOW, LOCK)
    assert (found.what, found.then, found.now) == ("package numpy", "1.0", NOW.packages["numpy"])
    assert found.moves_bits


def test_another_version_of_the_orchestration_moves_none() -> None:
    then = NOW.model_copy(update={"packages": {**NOW.packages, "prefect": "1.0"}})
    (found,) = compare(then, NOW, LOCK)
    assert not found.moves_bits


def test_without_a_record_the_lock_file_tells() -> None:
    (found,) = compare(None, NOW, {**LOCK, "torch": "1.0"})
    assert (found.what, found.then) == ("package torch", "1.0")


def test_a_package_that_is_gone_is_named() -> None:
    then = NOW.model_copy(update={"packages": {**NOW.packages, "torchaudio": "2.0"}})
    (found,) = compare(then, NOW, LOCK)
    assert (found.what, found.now) == ("package torchaudio", "not installed")


def test_threads_and_cores_outside_move_no_bits_and_instruction_sets_do() -> None:
    then = NOW.model_copy(
        update={"threads": {"OMP_NUM_THREADS": "7"}, "cores": 96, "cpu_flags": ("sse",)}
    )
    found = {difference.what: difference.moves_bits for difference in compare(then, NOW, LOCK)}
    assert found["cores"] is False
    assert found["OMP_NUM_THREADS"] is False
    assert found["CPU flags"] is True


def test_a_gpu_is_recorded_with_its_driver_cuda_and_cudnn_and_each_moves_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H200, 580.65.06\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    now = describe_environment()
    assert now.gpus == ("NVIDIA H200, 580.65.06",)
    assert set(now.cuda) == {"CUDA", "cuDNN"}
    then = now.model_copy(update={"cuda": {**now.cuda, "cuDNN": "90000"}})
    (found,) = compare(then, now, LOCK)
    assert (found.what, found.then, found.moves_bits) == ("cuDNN", "90000", True)
    before_it_was_recorded = Environment.model_validate(now.model_dump(exclude={"cuda"}))
    assert {found.then for found in compare(before_it_was_recorded, now, LOCK)} == {"none"}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert describe_environment().cuda == {}


def test_a_lock_file_is_read_by_canonical_names() -> None:
    text = (
        "# comment\nTyping_Extensions==4.1 \\\n    --hash=sha256:0\nfoo.bar==2 ; python_version\n"
    )
    assert read_locked_packages(text) == {"typing-extensions": "4.1", "foo-bar": "2"}


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ({"License-Expression": "MIT", "License": "something else"}, "MIT"),
        ({"Classifier": "License :: OSI Approved :: BSD License", "License": "x"}, "BSD License"),
        ({"Classifier": "License :: OSI Approved", "License": "Apache-2.0"}, "Apache-2.0"),
        ({"License": "ISC\n\nPermission is hereby granted ..."}, "ISC"),
        ({"License": "Permission to use, copy, modify " * 9}, None),
        ({"License": "UNKNOWN"}, None),
        ({}, None),
    ],
)
def test_a_licence_is_named_in_few_words_or_not_at_all(
    said: dict[str, str], licence: str | None
) -> None:
    assert name_licence({name: [value] for name, value in said.items()}) == licence
