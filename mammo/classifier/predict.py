"""The classifier's probability, or logit, of each picture."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from mammo.base.progress import track
from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import Pictures, Roi, build_loader, normalise

_LONG = 100  # batches: more of them show their progress


def predict(model: nn.Module, rois: Sequence[Roi], settings: Settings) -> NDArray[np.float64]:
    """Probability of the target for each ROI, (N,) in [0, 1], on the device that the model is on.

    Each goes through the network alone, since the size of a batch would change the last bits: an
    image has the same probability in every company, and the served model's is that of `evaluate`.

    Args:
        model: as from `load_classifier`; it is switched to eval mode.
        rois: image files, or pixels (h, w) of 0..255.
        settings: those the model was made with.

    Raises:
        UserError: if an image cannot be read.
    """
    alone = settings.model_copy(update={"batch_size": 1})
    logits = predict_logits(model, Pictures(rois, settings), alone)
    # Not NumPy's exp: where NumPy was loaded before `mammo`, that depends on the processor.
    return torch.from_numpy(logits).sigmoid().numpy()


def predict_logits(model: nn.Module, pictures: Pictures, settings: Settings) -> NDArray[np.float64]:
    """The logit of each picture, (N,)."""
    device = next(model.parameters()).device
    model.eval()
    batches = track_batches(build_loader(pictures, settings), "predict")
    with torch.inference_mode():
        logits = [model(normalise(batch.to(device))).cpu() for batch in batches]
    return torch.cat(logits).double().numpy() if logits else np.empty(0)


def track_batches(data: DataLoader[Any], title: str) -> Iterable[Any]:
    """The batches of a loader; if there are many of them, their progress is shown."""
    return track(data, title, len(data)) if len(data) > _LONG else data
