"""What a library reads from the environment, as it loads, to choose kernels by processor.

Importing `mammo` sets these, so that the same computation gives the same bits on every x86-64
processor with AVX2, Intel's or AMD's, with AVX-512 or without. What a process must do besides, once
it runs, is `determinism.pin`. A library that was loaded before `mammo` has chosen already: a
command that loads NumPy first, such as a Dask worker, is started through this module,

    python -m mammo.pins dask worker tcp://host:8786

which runs it in the same environment. Measured cause and remedy of each pin: docs/portability.md.
"""

import os
import platform
import sys
import warnings
from pathlib import Path

X86 = platform.machine() in ("x86_64", "AMD64")

_EVERYWHERE = {
    # No library may take fewer threads than it is told because it finds fewer cores: their number
    # decides how sums are split. torch's own is `params.threads`.
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    # NumPy's and SciPy's matrix products are small, and their threads would split sums too.
    "OPENBLAS_NUM_THREADS": "1",
}

# Libraries that pick the widest instruction set they find round otherwise with each of them. Each
# is held to AVX2, which x86-64 processors have had since 2013 (Intel) and 2015 (AMD).
_ON_X86 = {
    # torch's own kernels, and sorting: AVX2 against AVX-512.
    "ATEN_CPU_CAPABILITY": "avx2",
    # Convolutions and the like: AVX2 against AVX-512, and its kinds.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # Matrix products of torch; MKL also looks at the maker of the processor.
    "MKL_CBWR": "COMPATIBLE",
    # NumPy's float64 exp and log differ with AVX-512, its float32 exp between AVX2 and its baseline
    # (SSE4.2), and unstable sorts leave ties as the vector width has it. So: the baseline.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    # Matrix products of NumPy, SciPy and OpenCV: a kernel for each family of processors.
    "OPENBLAS_CORETYPE": "Haswell",
    # OpenCV's own code, and Intel's IPP inside it.
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
    "OPENCV_IPP": "avx2",
}

# Pillow and imagecodecs choose by processor as well, but only among ways to the same integers; our
# loop that Numba compiles computes with integers only. matplotlib does not choose.

PINS = {**_EVERYWHERE, **(_ON_X86 if X86 else {})}

_CPUINFO = Path("/proc/cpuinfo")

# `python -m mammo.pins` finds this module loaded by its package, as it must be, and warns of it.
warnings.filterwarnings("ignore", f"'{__name__}' found in sys.modules", RuntimeWarning)


def set_pins() -> None:
    """Put the pins into this process's environment, and so into its children's."""
    os.environ.update(PINS)
    # OpenCV prints a line if it is told to leave out what the processor does not have.
    if _CPUINFO.exists() and "avx512" not in _CPUINFO.read_text():
        os.environ.pop("OPENCV_CPU_DISABLE", None)
    # Makes OpenMP give fewer threads than asked for.
    os.environ.pop("OMP_THREAD_LIMIT", None)
    # How long threads that wait for each other spin before they sleep; no bit hangs on it. Measured
    # on two cores: without any spinning training took 1.3 to 2 times longer, and with OpenMP's own,
    # long one 5 times longer as soon as the machine had other work to do, such as reading files.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # NumPy refuses to load where both this and the list of what it may not use are set.
    os.environ.pop("NPY_ENABLE_CPU_FEATURES", None)


def main(command: list[str]) -> None:
    """Become another command, with the pins in its environment."""
    if not command:
        sys.exit("usage: python -m mammo.pins COMMAND [ARGUMENT ...]")
    set_pins()
    try:
        os.execvp(command[0], command)  # noqa: S606  (this very process goes on)
    except OSError as error:
        sys.exit(f"error: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
