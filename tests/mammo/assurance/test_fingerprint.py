"""The fingerprint tells arithmetics apart by family, and is the same where nothing differs."""

import json
import os
import subprocess
import sys

import pytest

from mammo.assurance.fingerprint import OTHERS, TORCH, compute_fingerprint
from mammo.base.settings import load_params
from tests.imports import ROOT


@pytest.fixture(scope="module")
def with_two_threads() -> dict[str, str]:
    return compute_fingerprint(2)


def test_it_is_the_same_in_another_process(with_two_threads: dict[str, str]) -> None:
    command = [sys.executable, "-m", "mammo.assurance.fingerprint"]
    env = {**os.environ, "OMP_THREAD_LIMIT": "1"}  # or with fewer threads than it is told to take
    said = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert load_params(ROOT / "params.yaml").threads == 2
    assert json.loads(said) == with_two_threads


def test_every_family_has_a_hash_of_its_own(with_two_threads: dict[str, str]) -> None:
    on_cpu = {n: x for n, x in with_two_threads.items() if not n.endswith("on the GPU")}
    assert on_cpu.keys() == TORCH.keys() | OTHERS.keys()
    assert len(set(on_cpu.values())) == len(on_cpu)


def test_another_thread_count_shows_in_what_is_split_among_threads(
    with_two_threads: dict[str, str],
) -> None:
    with_one = compute_fingerprint(1)
    differing = {name for name, value in with_one.items() if value != with_two_threads[name]}
    assert "convolution backward" in differing
    assert differing <= TORCH.keys()


def test_numpys_own_choice_of_kernels_shows_in_its_family_alone(
    with_two_threads: dict[str, str],
) -> None:
    # NumPy first, and the check that would refuse that switched off.
    script = """
import os
os.environ.pop("NPY_DISABLE_CPU_FEATURES", None)
import numpy, json
from mammo.base import determinism
determinism.check_pins = lambda: None
from mammo.assurance.fingerprint import compute_fingerprint
print(json.dumps(compute_fingerprint(2)))
"""
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    differing = {n for n, x in json.loads(said).items() if x != with_two_threads[n]}
    assert differing == {"NumPy's functions"}
