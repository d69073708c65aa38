"""The classifier's probability, or logit, of each picture."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import Pictures, build_loader, normalise, track_batches
from mammo.classifier.picture import RoiSource
from mammo.learning.parallel import WHOLE, Part, gather_parts


def predict(model: nn.Module, rois: Sequence[RoiSource], settings: Settings) -> NDArray[np.float64]:
    """Probability of the target for each ROI, (N,) in [0, 1], on the device that the model is on.

    On a CPU each goes through the network alone, since the size of a batch would change the last
    bits: an image has the same probability in every company, and the served model's is that of
    `evaluate`. A GPU would be idle most of the time, so there they go in batches.

    Args:
        model: as from `load_classifier`; it is switched to eval mode.
        rois: image files, or pixels (h, w) of 0..255.
        settings: those the model was made with.

    Raises:
        UserError: if an image cannot be read.
    """
    if next(model.parameters()).device.type == "cpu":
        settings = settings.model_copy(update={"batch_size": 1})
    logits = predict_logits(model, Pictures(rois, settings), settings)
    # Not NumPy's exp: where NumPy was loaded before `mammo`, that depends on the processor.
    return torch.from_numpy(logits).sigmoid().numpy()


def predict_logits(
    model: nn.Module, pictures: Pictures, settings: Settings, part: Part = WHOLE
) -> NDArray[np.float64]:
    """The logit of each picture, (N,).

    Args:
        model: is switched to eval mode.
        pictures: N of them.
        settings: those the model was made with.
        part: of the batches, which several processes with the same model share out. Each predicts
            whole batches, so the logits are those of one process.
    """
    device = next(model.parameters()).device
    model.eval()
    size = settings.batch_size
    positions = None if part.count == 1 else part.take_batches(len(pictures), size)
    loader = build_loader(pictures, size, device, positions, part.count)
    batches = track_batches(loader, "predict" if part.is_first else "")
    with torch.inference_mode():  # the logits stay where they are: a GPU works on meanwhile
        logits = [model(normalise(batch.to(device, non_blocking=True))) for batch in batches]
    found = torch.cat(logits).double().cpu().numpy() if logits else np.empty(0)
    return found if positions is None else gather_parts(positions, found, len(pictures), device)
