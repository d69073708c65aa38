"""Weights by name: to a safetensors file and back, and under a prefix."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
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


def dump_weights(weights: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file with these tensors; equal weights are equal bytes."""
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    content: bytes = save(tensors)
    return content


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names with a prefix and a dot before them."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with this prefix, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): tensor for n, tensor in tensors.items() if n.startswith(start)}
