"""Same inputs, same bytes: pins what would let a computation drift between two runs.

Call `pin` once, at the start of a process, before the first tensor is computed. What libraries read
when they are loaded is set before, by `mammo.pins`.
"""

import hashlib
import os
import random

import numpy as np

from mammo.base.errors import UserError
from mammo.pins import X86


def derive_seed(seed: int, name: str) -> int:
    """Derive a seed in [0, 2**31) for the stage or trial `name` from the pipeline's one `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def pin(seed: int, threads: int) -> None:
    """Seed every generator, fix torch's thread count and let it use deterministic kernels only.

    Args:
        seed: for `random`, NumPy and torch.
        threads: torch's thread count. It decides how sums are split, hence their last bits, so
            it belongs to a model's definition as much as the seed does.

    Raises:
        UserError: NumPy was loaded before `mammo`, and has chosen its kernels by this processor.
    """
    check_pins()
    random.seed(seed)
    np.random.seed(seed)
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    use_deterministic_kernels()


def use_deterministic_kernels() -> None:
    """Let torch use deterministic kernels only, and compute in float32 what is in float32.

    An operator that has no deterministic kernel is an error from then on, and TF32 is off, for
    matrix products, convolutions and recurrent layers. On a CPU neither changes a number.
    """
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when the first product is computed
    # Does what use_deterministic_algorithms does, without importing the compiler (seconds).
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode fills all new memory with NaN, so that reading it before writing shows: a
    # third of the time on a CPU, and nothing of ours reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # By torch's present names only: it refuses to answer who mixes them with `allow_tf32`.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


def check_pins() -> None:
    """Make sure that `mammo.pins` came before NumPy, the one library that tells what it obeys.

    Raises:
        UserError: it did not.
    """
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found")
    if X86 and found:
        raise UserError(
            f"NumPy was loaded before mammo could pin it, and uses {', '.join(found)}, so its last"
            " bits depend on the processor: start the command with `python -m mammo.pins COMMAND`"
        )
