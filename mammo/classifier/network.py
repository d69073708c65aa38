"""The network: a backbone and a small head that gives one logit.

Backbones are torchvision's classification models by their names there, without their last layer,
and `efficientnet_lite0`, `_lite1` and `_lite2`, whose ImageNet weights install like any package.
"""

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.classifier.imagenet_weights import (
    INSTALLED,
    check_digest,
    fetch_weights,
    find_cached,
    find_installed,
    import_models,
)
from mammo.learning.device import VARIABLE, choose_device
from mammo.learning.networks import (
    load_weights,
    read_architecture,
    read_network,
    write_network,
)
from mammo.learning.weights import read_weights, select_prefix

HEADS = ("fc", "classifier", "heads", "head")  # what torchvision calls the last layers
AUXILIARY = ("googlenet", "inception_v3")  # more than one output while training
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Classifier(nn.Module):
    """Backbone and head: (N, 3, H, W) float32, ImageNet-normalised, to (N,) logits.

    With `classifier.precision` bfloat16, the backbone computes in it by torch's autocast. The head
    computes in float32 always: logits of 8 bits would make ties of many breasts.

    Attributes:
        cam_name: the backbone's module whose output is the last feature map.
        precision: float32 or bfloat16.
        frozen: modules that do not learn; they stay in eval mode, so that their batch statistics
            stay too.
    """

    def __init__(self, backbone: nn.Module, features: int, cam_name: str, settings: Settings):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.Linear(features, settings.head_width),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.head_width, 1),
        )
        self.cam_name = cam_name
        self.precision = settings.precision
        self.frozen: list[nn.Module] = []
        if settings.trainable_layers != "all":
            leaves = [module for module in backbone.modules() if not any(module.children())]
            self.frozen = leaves[: max(0, len(leaves) - settings.trainable_layers)]
            # Parameters of no leaf, such as the scales of ConvNeXt's blocks, learn only if every
            # leaf learns.
            learning = {id(p) for leaf in leaves[len(self.frozen) :] for p in leaf.parameters()}
            for parameter in backbone.parameters():
                parameter.requires_grad_(not self.frozen or id(parameter) in learning)
        if settings.freeze_batch_norm:
            self.frozen += [m for m in backbone.modules() if isinstance(m, BATCH_NORMS)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N,) float32."""
        if images.is_cuda:  # as the weights are; on a CPU it would round otherwise
            images = images.contiguous(memory_format=torch.channels_last)
        kind, low = images.device.type, self.precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=low):
            features = self.backbone(images)
        logits: Tensor = self.head(features.float()).squeeze(1)
        return logits

    def train(self, mode: bool = True) -> "Classifier":
        """Switch to training, all but what is frozen."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def check_weights(settings: Settings) -> None:
    """Make sure, before long work, that the backbone and its first weights are there.

    Fetches torchvision's ImageNet weights into torch's cache if they are not in it.

    Raises:
        UserError: saying what is missing and where to put it; or that the backbone cannot be
            trained to the same bytes twice on the device that was chosen.
    """
    if settings.backbone not in OTHER_BACKBONES:
        _check_backbone(settings.backbone)
        if choose_device().type == "cuda":
            plain = import_models().get_model(settings.backbone, weights=None)
            require_determinism(plain, settings.backbone)
    if settings.weights == "none":
        return
    if settings.weights != "imagenet":
        if not Path(settings.weights).is_file():
            raise UserError(
                f"classifier.weights = {settings.weights!r}: there is no such file; name the"
                " weights.safetensors of a classifier, or write imagenet or none"
            )
    elif settings.backbone in OTHER_BACKBONES:
        find_installed(settings.backbone)
    else:
        fetch_weights(settings.backbone)


def build_classifier(settings: Settings) -> Classifier:
    """Build the network and give it its first weights; the head's are random (torch's generator).

    A weights file is one that `save_classifier` wrote: its backbone is taken, its head is not.

    Raises:
        UserError: if the backbone is unknown, has no feature map for Grad-CAM or cannot take
            images of the size wanted, or if the weights are missing or do not fit.
    """
    check_weights(settings)
    imagenet = settings.weights == "imagenet"
    if settings.backbone in OTHER_BACKBONES:
        backbone = OTHER_BACKBONES[settings.backbone](imagenet)
    else:
        backbone = _build_torchvision(settings.backbone, imagenet)
    features, cam_name = _probe(backbone, settings)
    if settings.weights not in ("imagenet", "none"):
        path = Path(settings.weights)
        state = select_prefix("backbone", read_weights(path))
        load_weights(backbone, state, path, settings.backbone)
    # Channels last is a quarter faster, on CPUs too.
    return Classifier(backbone, features, cam_name, settings).to(memory_format=torch.channels_last)


def save_classifier(model: Classifier, settings: Settings, folder: Path) -> None:
    """Write weights.safetensors and architecture.json; equal weights are equal bytes."""
    write_network(folder, model, settings)


def load_classifier(folder: Path) -> tuple[Classifier, Settings]:
    """Read what `save_classifier` wrote: the network, in eval mode, and its settings.

    The network is on the device that `choose_device` chooses.

    Raises:
        UserError: if a file is missing, damaged or does not fit the other; or as `choose_device`
            and `require_determinism`.
    """
    settings = read_architecture(folder, "classifier", Settings)
    # Not with the weights that training began with: their file may be gone by now.
    model = build_classifier(settings.model_copy(update={"weights": "none"}))
    read_network(folder, model, settings.backbone)
    return model.to(choose_device()).eval(), settings


def require_determinism(network: nn.Module, name: str) -> None:
    """Make sure that CUDA has deterministic kernels for a network, forward and backward.

    torch has none for the gradient of adaptive pooling, but for means over the whole picture, which
    it computes in another way. Grad-CAM takes gradients too, so the network is of no use there at
    all.

    Args:
        network: its modules are looked at.
        name: of its backbone, for the message.

    Raises:
        UserError: naming the module.
    """
    for path, module in network.named_modules():
        whole = isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
        if isinstance(module, _POOLS) and not whole:
            raise UserError(
                f"classifier.backbone = {name!r} cannot give the same bytes twice on a GPU: CUDA"
                f" has no deterministic gradient for its {path}, {module}; choose another backbone,"
                f" or set {VARIABLE}=cpu"
            )


def get_cam_layer(model: nn.Module) -> nn.Module:
    """The module whose output, (N, C, h, w), is the last feature map: what Grad-CAM looks at."""
    assert isinstance(model, Classifier)
    return model.backbone.get_submodule(model.cam_name)


def _check_backbone(name: str) -> None:
    models = import_models()
    if name not in models.list_models(module=models):
        raise UserError(
            f"classifier.backbone = {name!r} is none of {', '.join(OTHER_BACKBONES)}, and no"
            " classification model of the torchvision installed"
        )
    if name in AUXILIARY:
        raise UserError(
            f"classifier.backbone = {name!r} trains with auxiliary outputs, which are not"
            " supported; choose another"
        )


def _build_lite(name: str, imagenet: bool) -> nn.Module:
    """An EfficientNet-Lite up to its pooled features (1280 of them), as one plain sequence.

    Without stochastic depth: it is noise against overfitting in training from scratch.

    Args:
        name: as settings have it, such as efficientnet_lite0.
        imagenet: whether it gets ImageNet's weights.
    """
    net = EfficientNet.from_name(name.replace("_", "-"), image_size=None)  # pads for any size
    if imagenet:
        net.load_state_dict(torch.load(find_installed(name), weights_only=True))
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True  # a third of the memory
    return nn.Sequential(
        nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6(inplace=True)),
        *net._blocks,
        nn.Sequential(net._conv_head, net._bn1, nn.ReLU6(inplace=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


OTHER_BACKBONES: dict[str, Callable[[bool], nn.Module]] = {
    name: partial(_build_lite, name) for name in INSTALLED
}
"""Backbones that torchvision does not have, by name; each is built with or without ImageNet's
weights, up to its pooled features."""


def _build_torchvision(name: str, imagenet: bool) -> nn.Module:
    """A torchvision model with its last linear layer taken out."""
    net: nn.Module = import_models().get_model(name, weights=None)
    if imagenet:
        path = find_cached(name)
        check_digest(path)
        net.load_state_dict(torch.load(path, weights_only=True))
    linear = [
        path
        for path, module in net.named_modules()
        if path.split(".")[0] in HEADS and isinstance(module, nn.Linear)
    ]
    if not linear:
        raise UserError(
            f"classifier.backbone = {name!r} does not end in a linear layer; choose another"
        )
    net.set_submodule(linear[-1], nn.Identity())
    return net


def _probe(backbone: nn.Module, settings: Settings) -> tuple[int, str]:
    """Find the number of features and the name of the last feature map, with a black image.

    It is computed, on the CPU. A tensor without data ("meta") would do, but for it torch imports
    its compiler, which takes longer than the image, and which a network in use needs for nothing
    else.

    The last feature map is the output, (1, C, h, w), of the last module to finish that runs only
    once: Grad-CAM could not tell apart the outputs of a module that runs several times. Modules
    that pool to a fixed size do not count, nor does any output after pooling.
    """
    model = copy.deepcopy(backbone).eval()
    runs: Counter[str] = Counter()
    maps: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            runs[name] += 1
            is_map = isinstance(output, Tensor) and output.dim() == 4
            if is_map and output.shape[2:].numel() > 1 and not isinstance(module, _POOLS):
                maps.append(name)

        return hook

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(watch(name))
    size = settings.image_height, settings.image_width
    try:
        with torch.no_grad():
            output = model(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"classifier.backbone = {settings.backbone!r} cannot take images of {size[0]} x"
            f" {size[1]} pixels ({str(error).splitlines()[0]}); change image_height and"
            " image_width, or the backbone"
        ) from None
    once = [name for name in maps if runs[name] == 1]
    if not once or type(backbone).__name__ == "VisionTransformer":
        raise UserError(
            f"classifier.backbone = {settings.backbone!r} has no feature map for Grad-CAM at"
            f" {size[0]} x {size[1]} pixels; choose a convolutional one, or larger images"
        )
    return output.shape[1], once[-1]


_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
