"""Checkpoints of a training: after a crash it goes on from its last epoch, to the same bytes.

A checkpoint is one safetensors file, named by a hash of everything that decides the training, so
that only the same training goes on from it. It holds numbers and JSON, no pickle.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mammo.base.progress import say
from mammo.kept.code_version import code_version
from mammo.learning.device import describe_device
from mammo.learning.weights import add_prefix, select_prefix


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after an epoch: tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Any


def hash_inputs(
    module: str, facts: Any, contents: Iterable[bytes], tensors: Mapping[str, Tensor]
) -> str:
    """Hash what decides a training or a search, our code included; as hex.

    Args:
        module: the one that trains; the code that it uses counts.
        facts: settings, seed and the like, as JSON can hold them.
        contents: the data.
        tensors: first weights, by name.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    code = [code_version(module, ()).encode()]
    weights = (dump_tensor(tensors[name]) for name in sorted(tensors))
    for part in chain(code, contents, weights):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What decides the last bits of a training on a device, besides its inputs."""
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return machine | describe_device(device)


def dump_tensor(tensor: Tensor) -> bytes:
    """A tensor's numbers, in its own type."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def save(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before, through a temporary name.

    A full disk does not end the training: a message is printed, and the checkpoint before stays.
    """
    partial = _path(folder, f".{name}")
    tensors = {key: tensor.cpu().contiguous() for key, tensor in checkpoint.tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"facts": json.dumps(checkpoint.facts)})
        partial.replace(_path(folder, name))
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        say(f"no checkpoint could be written to {folder}: {error}")


def load(folder: Path, name: str) -> Checkpoint | None:
    """Read a checkpoint, to the CPU; None if there is none, or none that can be read."""
    path = _path(folder, name)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return Checkpoint({key: file.get_tensor(key) for key in file.keys()}, facts)  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        say(f"{path}: cannot be read ({error}); training starts from its beginning")
        return None


def collect_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Collect what training changes, by name: weights, moments, random generators."""
    moments = {
        f"optimizer.{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }
    generators = {"generator.cpu": torch.get_rng_state()}
    device = _device_of(model)
    if device.type == "cuda":
        generators["generator.gpu"] = torch.cuda.get_rng_state(device)
    return {**add_prefix("model", model.state_dict()), **moments, **generators}


def restore(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """Put what `collect_state` returned into a model and an optimizer built in the same way."""
    model.load_state_dict(select_prefix("model", tensors))
    for number, parameter in enumerate(_parameters(optimizer)):
        moments = select_prefix(f"optimizer.{number}", tensors)
        # With the parameter's layout in memory, which decides how sums are rounded.
        optimizer.state[parameter] = {
            name: value.to(parameter.device)
            if name == "step"
            else torch.empty_like(parameter).copy_(value)
            for name, value in moments.items()
        }
    torch.set_rng_state(tensors["generator.cpu"])
    device = _device_of(model)
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator.gpu"], device)


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
