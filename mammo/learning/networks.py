"""The two files of a trained network: its weights, and the architecture that they belong to."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from mammo.base.atomic_files import NETWORK_FILES, write_bytes, write_json
from mammo.base.errors import UserError
from mammo.learning.weights import dump_weights, read_weights

Architecture = TypeVar("Architecture", bound=BaseModel)
Kind = Literal["classifier", "detector"]
"""What a network is; the stage train_KIND writes it."""

_WEIGHTS, _ARCHITECTURE = NETWORK_FILES


def write_network(folder: Path, model: nn.Module, architecture: BaseModel) -> None:
    """Write weights.safetensors and architecture.json; equal networks are equal bytes."""
    write_bytes(folder / _WEIGHTS, dump_weights(model.state_dict()))
    write_json(folder / _ARCHITECTURE, architecture.model_dump(mode="json"))


def read_architecture(folder: Path, kind: Kind, form: type[Architecture]) -> Architecture:
    """Read architecture.json, as `form` describes it.

    Raises:
        UserError: if it is missing or something else.
    """
    path = folder / _ARCHITECTURE
    try:
        return form.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run the stage train_{kind}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(
            ": ".join((*map(str, fault["loc"]), fault["msg"])) for fault in error.errors()
        )
        raise UserError(
            f"{path}: is not a {kind}'s architecture ({faults}); run the stage train_{kind} again"
        ) from None


def read_network(folder: Path, model: nn.Module, name: str) -> None:
    """Load weights.safetensors into a network that was built by the architecture.

    Args:
        folder: of both files.
        model: the network; its weights are replaced.
        name: of its architecture.

    Raises:
        UserError: if the file is missing or damaged, or holds the weights of another network.
    """
    path = folder / _WEIGHTS
    load_weights(model, read_weights(path), path, name)


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path, name: str) -> None:
    """Replace all weights of a network by those that were read from a file.

    Args:
        model: the network.
        weights: tensors by name.
        path: the file.
        name: of the network's architecture.

    Raises:
        UserError: if a tensor is missing, unknown or of another shape.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UserError(f"{path}: does not hold the weights of {name}: {faults}") from None
