"""Same inputs, same bytes: pins what would let a computation drift between two runs.

Call `pin` once, at the start of a process, before the first tensor is computed.
"""

import hashlib
import os
import random

import numpy as np

# Kernels chosen by instruction set give other bits (AVX2 against AVX-512: measured), so each
# library is held to what every x86-64 machine of the last ten years has. The libraries read
# these when they compute for the first time, not when they are imported.
INSTRUCTION_SETS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}


def stage_seed(seed: int, name: str) -> int:
    """Derive a seed in [0, 2**31) for the stage or trial `name` from the pipeline's one `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def pin(seed: int, threads: int) -> None:
    """Seed every generator, fix torch's thread count and let it use deterministic kernels only.

    Args:
        seed: for `random`, NumPy and torch.
        threads: torch's thread count. It decides how sums are split, hence their last bits, so
            it belongs to a model's definition as much as the seed does.
    """
    os.environ.update(INSTRUCTION_SETS)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # A library may not choose fewer threads because it finds fewer cores.
    os.environ["OMP_DYNAMIC"] = "FALSE"
    os.environ["MKL_DYNAMIC"] = "FALSE"
    random.seed(seed)
    np.random.seed(seed)
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    # Does what use_deterministic_algorithms does, without importing the compiler (seconds).
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode fills all new memory with NaN, so that reading it before writing shows: a
    # third of the time on a CPU, and nothing here reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
