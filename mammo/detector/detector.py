"""The YOLO breast detector: save, load, find. `detector_training` trains it.

ultralytics brings the network. It sees a mammogram as one square, scaled to fit, black at the right
and the bottom: the same in training, validation and use. Weights are kept as safetensors, because
ultralytics' own checkpoints hold dates and paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mammo.base.atomic_files import read_json, write_json
from mammo.base.errors import UserError
from mammo.detector.ultralytics_adapter import DetectionModel, non_max_suppression
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.geometry import Box
from mammo.outs.weights import read_weights

LOWEST_CONFIDENCE = 0.001
"""Detections below this are not reported: ultralytics' own bound when it computes mAP."""


@dataclass(frozen=True)
class Detection:
    """A box in pixels of the image searched, and the network's confidence in it, in [0, 1]."""

    box: Box
    confidence: float


@dataclass(frozen=True)
class Detector:
    """A network with weights, in eval mode."""

    model: DetectionModel
    architecture: str
    image_size: int  # pixels of the square that the network sees

    def find(self, images: Sequence[np.ndarray]) -> list[Detection | None]:
        """The best box in each image (uint8, HxW, any size), or None where there is none.

        Each image goes through the network alone: the size of a batch would change the last bits.
        """
        return [self._find(image) for image in images]

    @torch.inference_mode()
    def _find(self, image: np.ndarray) -> Detection | None:
        square, placement = fit_in_frame(image, self.image_size, self.image_size)
        device = next(self.model.parameters()).device
        batch = torch.from_numpy(square).to(device).expand(1, 3, -1, -1).float() / 255
        best = non_max_suppression(self.model(batch), conf_thres=LOWEST_CONFIDENCE, max_det=1)[0]
        if not len(best):
            return None
        x1, y1, x2, y2, confidence = best[0, :5].double().cpu().tolist()
        inside = Box(x1, y1, x2, y2).clip(placement.width, placement.height)
        return Detection(placement.to_stored(inside), confidence) if inside.area > 0 else None


def untrained_detector(architecture: str, image_size: int) -> Detector:
    """A detector that has learnt nothing, on the GPU if there is one.

    Raises:
        UserError: if ultralytics does not know the architecture.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_network(architecture).to(device).eval().requires_grad_(False)
    return Detector(model, architecture, image_size)


def save_detector(detector: Detector, folder: Path) -> None:
    """Write weights.safetensors (float32) and architecture.json."""
    weights = {
        name: value.cpu().contiguous() for name, value in detector.model.state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors")
    write_json(
        folder / "architecture.json",
        {"architecture": detector.architecture, "image_size": detector.image_size},
    )


def load_detector(folder: Path) -> Detector:
    """Load what `save_detector` wrote, to the GPU if there is one.

    Raises:
        UserError: if a file is missing or the weights are not those of the architecture.
    """
    path = folder / "architecture.json"
    try:
        described = read_json(path)
        architecture, size = described["architecture"], described["image_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: does not describe a detector ({error!r}); train it") from None
    detector = untrained_detector(architecture, size)
    weights = read_weights(folder / "weights.safetensors")
    try:
        detector.model.load_state_dict(weights)
    except RuntimeError:
        raise UserError(
            f"{folder / 'weights.safetensors'}: these are not the weights of {architecture}"
        ) from None
    return detector


def build_network(architecture: str) -> DetectionModel:
    """A network for one class from a model file that ultralytics brings.

    Raises:
        UserError: it brings none of this name, or would take another file for it: nothing would
            tell what that held.
    """
    if Path(architecture).name != architecture or Path(architecture).exists():
        raise UserError(
            f"detector.architecture = {architecture!r} is a file of your own, which no snapshot "
            "names: take the name of one that ultralytics brings, such as yolo11n.yaml"
        )
    try:
        return DetectionModel(architecture, nc=1, verbose=False)
    except FileNotFoundError:
        raise UserError(
            f"detector.architecture: ultralytics has no model file {architecture!r}; "
            "take one such as yolo11n.yaml"
        ) from None
