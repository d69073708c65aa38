"""What is tried without being a setting: by name, what is done to a training while it runs."""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, logsigmoid
from torchvision.ops import sigmoid_focal_loss

from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import Epoch
from mammo.classifier.network import Classifier, build_classifier
from mammo.classifier_training import fit as training


class Tiled(Classifier):
    """A network that judges tiles of the picture; one positive tile makes it positive (noisy-or).

    Its last two layers pool the whole picture and flatten it.
    """

    TILES = 3, 2  # down and across

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N,): of 1 - prod(1 - p) over the tiles."""
        assert isinstance(self.backbone, nn.Sequential)
        tiles = adaptive_avg_pool2d(self.backbone[:-2](images), self.TILES).flatten(2)
        no_tile = logsigmoid(-self.head(tiles.transpose(1, 2)).squeeze(2)).sum(dim=1)
        return torch.log(torch.expm1((-no_tile).clamp(1e-6, 50.0)))


def build_tiled(settings: Settings) -> Classifier:
    model = build_classifier(settings)
    model.__class__ = Tiled
    return model


class SpreadEpoch(Epoch):
    """An epoch's pictures, ordered so that each batch has its share of the positives."""

    def __init__(
        self,
        pictures: Any,
        targets: NDArray[np.int64],
        settings: Settings,
        seed: int,
        epoch: int,
    ):
        super().__init__(pictures, targets, settings, seed, epoch)
        positive = targets[self.order] == 1
        # Where each would lie, were its own kind alone spread evenly over the epoch.
        position = np.empty(len(self.order))
        for kind in (positive, ~positive):
            position[kind] = (np.arange(kind.sum()) + 0.5) / max(kind.sum(), 1)
        self.order = self.order[np.argsort(position, kind="stable")]


class FocalLoss(nn.Module):
    """The focal loss (Lin et al. 2017, gamma 2), which counts less what is right already."""

    GAMMA = 2.0

    def __init__(self, pos_weight: Tensor | float = 1.0):
        super().__init__()
        self.pos_weight = pos_weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the pictures."""
        losses: Tensor = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=self.GAMMA)
        weights = torch.where(targets == 1, self.pos_weight, 1.0)
        return torch.mean(losses * weights)


@contextmanager
def _focal(_settings: Settings) -> Iterator[None]:
    with patch.object(nn, "BCEWithLogitsLoss", FocalLoss):
        yield


@contextmanager
def _tiles(settings: Settings) -> Iterator[None]:
    if not settings.backbone.startswith("efficientnet_lite"):
        raise UserError("tiles are judged by an efficientnet_lite only")
    with patch.object(training, "build_classifier", build_tiled):
        yield


@contextmanager
def _spread(_settings: Settings) -> Iterator[None]:
    with patch.object(training, "Epoch", SpreadEpoch):
        yield


CHANGES: dict[str, Callable[[Settings], AbstractContextManager[Any]]] = {
    "": nullcontext,
    "tiles": _tiles,
    "spread": _spread,
    "focal": _focal,
}
"""By name; each holds while one network is trained and predicts."""
