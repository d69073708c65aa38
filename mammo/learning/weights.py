"""Reading the weights that another stage wrote. A fault is one sentence."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mammo.base.errors import UserError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, to the CPU.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from None
