"""Write a predictor's networks as ONNX, with the heat as a part of the classifier.

The heat needs a gradient, and ONNX has none. Behind the feature map there is a mean over it and the
head, whose gradient is a formula:

    features f = mean over the map; h = W1 f + b1; logit = w2 . max(h, 0) + b2
    d logit / d f = W1' (w2 where h > 0, else 0)

Each pixel of a channel has the same gradient, a (height x width)th of that. So Grad-CAM's weight of
a channel, the mean of its gradients, is the same number. A backbone with more than a mean behind
its map is refused; whether it has, torch's own gradient says, for a picture of noise.

The same networks give the same bytes.
"""

import io
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mammo.base.atomic_files import fresh_folder, write_bytes, write_json
from mammo.base.errors import UserError
from mammo.classifier.inputs import normalise
from mammo.classifier.network import Classifier, get_cam_layer, load_classifier
from mammo.detector.detector import Detector, load_detector
from mammo.portable.predictor import CLASSIFIER_FILE, DESCRIPTION_FILE, DETECTOR_FILE
from mammo.serving.prediction import EVALUATION_FILE

OPSET = 18

CLOSE = 1e-5
"""How far the formula's weights may be from torch's, as a part of the largest of them."""


class _FoundBoxes(nn.Module):
    """(1, S, S) uint8 in, (1, 5, N) out: what ultralytics' network says before its last step."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.network = detector.model

    def forward(self, pictures: Tensor) -> Tensor:
        batch = pictures[:, None].expand(1, 3, -1, -1).float() / 255
        found: Tensor = self.network(batch)[0]
        return found


class _Explained(nn.Module):
    """(1, H, W) uint8 in; the logit, (1,), and the heat on the map's grid, (1, h, w), out."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model
        self.maps: list[Tensor] = []
        get_cam_layer(model).register_forward_hook(lambda _m, _i, output: self.maps.append(output))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        self.maps.clear()
        features = self.model.backbone(normalise(pictures)).float()
        logit = self.model.head(features).squeeze(1)
        (seen,) = self.maps
        weights = _find_gradient(self.model, features) / (seen.shape[2] * seen.shape[3])
        return logit, torch.relu((weights[:, :, None, None] * seen).sum(dim=1))


def export_predictor(source: Path, target: Path) -> None:
    """Write what `portable.load_portable` loads, from a folder that `load_predictor` loads.

    Args:
        source: params.yaml, detector/ and classifier/, and the scores if there are any.
        target: a folder, which appears whole.

    Raises:
        UserError: as `load_predictor`; or the backbone has no formula for the heat.
    """
    detector = load_detector(source / "detector")
    model, settings = load_classifier(source / "classifier")
    assert isinstance(model, Classifier)
    if settings.precision != "float32":
        raise UserError(
            f"classifier.precision = {settings.precision}: only float32 is exported to ONNX"
        )
    explained = _Explained(model.cpu())
    shape = settings.image_height, settings.image_width
    _check_formula(explained, shape, settings.backbone)
    with fresh_folder(target) as partial:
        shutil.copyfile(source / "params.yaml", partial / "params.yaml")
        if (source / EVALUATION_FILE).exists():
            (partial / EVALUATION_FILE).parent.mkdir()
            shutil.copyfile(source / EVALUATION_FILE, partial / EVALUATION_FILE)
        square = detector.image_size, detector.image_size
        detector.model.cpu()
        write_bytes(partial / DETECTOR_FILE, _export(_FoundBoxes(detector), square, ["found"]))
        write_bytes(partial / CLASSIFIER_FILE, _export(explained, shape, ["logit", "heat"]))
        described = {"image_size": detector.image_size, "classifier": settings.model_dump()}
        write_json(partial / DESCRIPTION_FILE, described)


def _export(module: nn.Module, shape: tuple[int, int], outputs: list[str]) -> bytes:
    stream = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # torch's newer exporter writes paths of this machine into the file.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, *shape, dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]  # a file, too
            input_names=["pictures"],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=False,
        )
    return stream.getvalue()


def _check_formula(explained: _Explained, shape: tuple[int, int], backbone: str) -> None:
    """Compare the formula with torch's own gradient.

    Raises:
        UserError: they differ: there is more than a mean behind the feature map.
    """
    refusal = UserError(
        f"classifier.backbone = {backbone!r}: between its feature map and the head is more than a "
        "mean, so that the heat has no formula for ONNX: it cannot be exported"
    )
    noise = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    model = explained.model
    # What comes behind may change the map in place, and the gradient is of the map before.
    copying = get_cam_layer(model).register_forward_hook(lambda _m, _i, output: output.clone())
    try:
        with torch.enable_grad():
            explained.maps.clear()
            pictures = normalise(torch.from_numpy(noise)).requires_grad_()
            features = model.backbone(pictures).float()
            (seen,) = explained.maps
            (true,) = torch.autograd.grad(model.head(features).sum(), seen)
    finally:
        copying.remove()
    weights = true.mean(dim=(2, 3))
    formula = _find_gradient(model, features) / seen[0, 0].numel()
    if formula.shape != weights.shape:
        raise refusal
    if not (formula - weights).abs().max() <= CLOSE * weights.abs().max():
        raise refusal


def _find_gradient(model: Classifier, features: Tensor) -> Tensor:
    """The gradient of the logit with respect to the features, (1, C)."""
    first, last = model.head[0], model.head[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return torch.where(first(features) > 0, last.weight, 0.0) @ first.weight
