"""The YOLO breast detector: save, load, find. `detector_training` trains it.

The network comes from ultralytics. It sees a mammogram as one square, scaled to fit, black at the
right or at the bottom: the same in training, validation and use. Weights are kept as safetensors,
because ultralytics' own checkpoints hold dates and paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mammo.base.errors import UserError
from mammo.base.settings import Positive, Section
from mammo.detector.detection import LOWEST_CONFIDENCE, Detection, box_in_image
from mammo.detector.ultralytics_adapter import DetectionModel, non_max_suppression
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.geometry import Box
from mammo.learning.device import choose_device
from mammo.learning.networks import read_architecture, read_network, write_network


class _Architecture(Section):
    """What architecture.json holds."""

    architecture: str
    image_size: Positive


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
        box = box_in_image(Box(x1, y1, x2, y2), placement)
        return Detection(box, confidence) if box.area > 0 else None


def build_detector(architecture: str, image_size: int) -> Detector:
    """Build a detector with random weights, on the device that `choose_device` chooses.

    Raises:
        UserError: if ultralytics does not know the architecture, or as `choose_device`.
    """
    model = build_network(architecture).to(choose_device()).eval().requires_grad_(False)
    return Detector(model, architecture, image_size)


def save_detector(detector: Detector, folder: Path) -> None:
    """Write weights.safetensors (float32) and architecture.json."""
    described = _Architecture(architecture=detector.architecture, image_size=detector.image_size)
    write_network(folder, detector.model, described)


def load_detector(folder: Path) -> Detector:
    """Load what `save_detector` wrote, to the device that `choose_device` chooses.

    Raises:
        UserError: if a file is missing or the weights are not those of the architecture, or as
            `choose_device`.
    """
    described = read_architecture(folder, "detector", _Architecture)
    detector = build_detector(described.architecture, described.image_size)
    read_network(folder, detector.model, described.architecture)
    return detector


def build_network(architecture: str) -> DetectionModel:
    """Build a network for one class from one of ultralytics' own model files.

    Raises:
        UserError: if ultralytics has no file of this name, or would take a file of the user's
            instead, whose content no snapshot would hold.
    """
    if Path(architecture).name != architecture or Path(architecture).exists():
        raise UserError(
            f"detector.architecture = {architecture!r} is a file of your own, which no snapshot "
            "holds: take the name of one of ultralytics' model files, such as yolo11n.yaml"
        )
    try:
        return DetectionModel(architecture, nc=1, verbose=False)
    except FileNotFoundError:
        raise UserError(
            f"detector.architecture: ultralytics has no model file {architecture!r}; "
            "take one such as yolo11n.yaml"
        ) from None
