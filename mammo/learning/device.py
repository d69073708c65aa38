"""Where networks learn and predict: on a GPU if there is one, or where MAMMOFLOW_DEVICE says.

    MAMMOFLOW_DEVICE=cpu python -m stages.evaluate       # cpu, cuda (the first card) or cuda:1

Every network goes where `choose_device` says: detector and classifier, in training and in use, in
the stages, in the gate and in the served model. CUDA_VISIBLE_DEVICES hides cards, as everywhere.
"""

import os
import re
import subprocess
from functools import cache

import torch

from mammo.base.determinism import use_deterministic_kernels
from mammo.base.errors import UserError

VARIABLE = "MAMMOFLOW_DEVICE"

_FORM = re.compile(r"cpu|cuda(?::(\d{1,3}))?")


def choose_device() -> torch.device:
    """Choose the device of this process; a card gets a number, and becomes torch's current one.

    On a card, deterministic kernels and float32 without TF32 are switched on, also in a process
    that `determinism.pin` has not set up, such as the served model's.

    Raises:
        UserError: MAMMOFLOW_DEVICE names no device, or a card that is not there.
    """
    cards = count_cards()
    wanted = os.environ.get(VARIABLE) or ("cuda" if cards else "cpu")
    form = _FORM.fullmatch(wanted)
    if form is None:
        raise UserError(
            f"{VARIABLE} = {wanted!r} is no device: write cpu, cuda, or cuda:1 for the second card,"
            " or unset it"
        )
    if wanted == "cpu":
        return torch.device("cpu")
    number = int(form[1] or 0)
    if number >= cards:
        there = "torch sees no card" if not cards else f"the last card is cuda:{cards - 1}"
        raise UserError(
            f"{VARIABLE} = {wanted!r}: {there}; name another device, or unset the variable"
        )
    use_deterministic_kernels()
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def count_cards() -> int:
    """How many GPUs torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def list_cards() -> list[str]:
    """The GPUs that work may be spread over, each as CUDA_VISIBLE_DEVICES names it.

    None if there is no GPU, or if MAMMOFLOW_DEVICE names one device for everything.
    """
    if is_chosen_by_hand():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(count_cards())]
    return [name.strip() for name in names[: count_cards()]]


def is_chosen_by_hand() -> bool:
    """Whether MAMMOFLOW_DEVICE says which device it is to be."""
    return bool(os.environ.get(VARIABLE))


def describe_device(device: torch.device) -> dict[str, str]:
    """What decides how a device rounds, besides what is asked of it.

    Returns:
        `gpu`: the card's name, or none. For a card also `cuda`, `cudnn` and `driver`: versions.
    """
    if device.type != "cuda":
        return {"gpu": "none"}
    return {"gpu": torch.cuda.get_device_name(device), **find_cuda_versions()}


@cache
def find_cuda_versions() -> dict[str, str]:
    """The versions of `cuda` and `cudnn` that torch uses, and of the `driver`."""
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": _find_driver(),
    }


def _find_driver() -> str:
    """The version of NVIDIA's driver, by NVIDIA's own tool: torch does not tell it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return next(iter(said.split()), "unknown")
