"""What libraries say, in a process of their own, of the kernels that they were pinned to."""

import json
import os
import subprocess
import sys

import pytest

from mammo.pins import PINS, X86
from tests.imports import ROOT

SAY = """
import json, cv2, numpy, scipy.linalg, sklearn, torch
from threadpoolctl import threadpool_info
blas = [found for found in threadpool_info() if found["internal_api"] == "openblas"]
print(json.dumps({
    "numpy": numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
    "torch": torch.backends.cpu.get_cpu_capability(),
    "openblas": [[found["architecture"], found["num_threads"]] for found in blas],
    "opencv": cv2.getCPUFeaturesLine().split(),
    "ipp": [cv2.ipp.useIPP(), cv2.ipp.getIppVersion()],
}))
"""

x86 = pytest.mark.skipif(not X86, reason="kernels are chosen otherwise on this architecture")


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python without what this process has pinned."""
    kept = {name: value for name, value in os.environ.items() if name not in PINS}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@x86
@pytest.mark.parametrize(
    "arguments",
    [("-c", f"import mammo\n{SAY}"), ("-m", "mammo.pins", sys.executable, "-c", SAY)],
    ids=["import mammo", "python -m mammo.pins"],
)
def test_libraries_use_what_they_are_pinned_to(arguments: tuple[str, ...]) -> None:
    done = python(*arguments)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["numpy"] == []
    assert said["torch"] == "AVX2"
    assert len(said["openblas"]) >= 2  # NumPy's and SciPy's, and OpenCV's if it brings one
    assert all(found == ["Haswell", 1] for found in said["openblas"])
    # A star is what is dispatched to, a question mark what the environment switched off.
    used = [name.strip("*") for name in said["opencv"] if not name.endswith("?")]
    assert "AVX2" in used
    assert not any("AVX512" in name for name in used)
    assert said["ipp"][0]
    assert "AVX2 (l9)" in said["ipp"][1]
    assert done.stderr == ""


@x86
def test_a_process_that_loaded_numpy_first_is_refused() -> None:
    done = python("-c", "import numpy\nfrom mammo.base.determinism import pin\npin(0, 1)")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "mammo.base.errors.UserError: NumPy was loaded before mammo could pin it"
    )
    assert last.endswith("start the command with `python -m mammo.pins COMMAND`")


@x86
def test_so_is_a_stage_of_any_kind() -> None:
    script = "import numpy\nfrom stages.runner import run_stage\nrun_stage(lambda: None)"
    done = python("-c", script)
    assert done.returncode == 1
    assert done.stderr.startswith("error: NumPy was loaded before mammo could pin it")


def test_what_somebody_set_for_numpy_does_not_keep_it_from_loading() -> None:
    done = python("-c", "import mammo, numpy", NPY_ENABLE_CPU_FEATURES="AVX2")
    assert done.returncode == 0, done.stderr


def test_one_that_loaded_mammo_first_is_not() -> None:
    done = python("-c", "import mammo, numpy\nfrom mammo.base.determinism import pin\npin(0, 1)")
    assert done.returncode == 0, done.stderr


def test_a_command_gets_every_pin_and_keeps_its_exit_status() -> None:
    script = "import json, os; print(json.dumps(dict(os.environ))); raise SystemExit(3)"
    done = python("-m", "mammo.pins", sys.executable, "-c", script)
    assert done.returncode == 3
    # OpenCV's is left out where there is no AVX-512 that it could leave out.
    expected = {name: value for name, value in PINS.items() if name != "OPENCV_CPU_DISABLE"}
    assert expected.items() <= json.loads(done.stdout).items()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ((), "usage: python -m mammo.pins COMMAND [ARGUMENT ...]"),
        (("no-such-command", "x"), "error: no-such-command: No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_run_is_told(command: tuple[str, ...], told: str) -> None:
    done = python("-m", "mammo.pins", *command)
    assert done.returncode == 1
    assert done.stderr.strip() == told
