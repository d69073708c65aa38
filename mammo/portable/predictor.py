"""A predictor whose networks ONNX Runtime computes; `exporting` writes its folder.

Its answers are torch's but for rounding: `exporting` makes sure of it. The detector's last step,
which ultralytics calls non-maximum suppression, is in this module: of one class, and of one box at
most, it is the box with the highest confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.base.settings import Params, load_params
from mammo.cropping.find_breast import cut_breast
from mammo.detector.detection import LOWEST_CONFIDENCE, Detection, box_in_image
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.geometry import Box
from mammo.intake.prepare import Prepared, prepare
from mammo.serving.finding import OperatingPoint
from mammo.serving.heat_map import spread_heat
from mammo.serving.prediction import (
    EVALUATION_FILE,
    NetworkOutput,
    Prediction,
    draw_heatmap,
    read_operating_point,
)

DETECTOR_FILE, CLASSIFIER_FILE, DESCRIPTION_FILE = (
    "detector.onnx",
    "classifier.onnx",
    "portable.json",
)
"""In the predictor's folder: the networks, and the sizes of their inputs."""


@dataclass(frozen=True)
class PortableDetector:
    """The detector: (1, S, S) of 0..255 in; (5, N) out, a box and its confidence a column."""

    session: onnxruntime.InferenceSession
    image_size: int  # S, pixels

    def find(self, images: Sequence[np.ndarray]) -> list[Detection | None]:
        """The best box in each image (uint8, HxW, any size), or None where there is none."""
        return [self._find(image) for image in images]

    def _find(self, image: NDArray[np.uint8]) -> Detection | None:
        square, placement = fit_in_frame(image, self.image_size, self.image_size)
        (found,) = self.session.run(None, {"pictures": square[None]})
        best = choose_best(found[0])
        if best is None:
            return None
        box = box_in_image(best[0], placement)
        return Detection(box, best[1]) if box.area > 0 else None


def choose_best(found: NDArray[np.float32]) -> tuple[Box, float] | None:
    """The box with the highest confidence, if that is above `LOWEST_CONFIDENCE`, in the square.

    Args:
        found: (5, N): the middle of each box, its width and height, and its confidence.
    """
    at = int(found[4].argmax())
    x, y, width, height, confidence = found[:, at]
    if not confidence > LOWEST_CONFIDENCE:
        return None
    across, down = width / 2, height / 2  # in float32, as ultralytics computes it
    corners = (float(side) for side in (x - across, y - down, x + across, y + down))
    return Box(*corners), float(confidence)


@dataclass(frozen=True)
class PortableClassifier:
    """The classifier: (1, H, W) of 0..255 in; the logit, and the heat on a coarse grid, out."""

    session: onnxruntime.InferenceSession
    settings: Settings


@dataclass(frozen=True)
class PortablePredictor:
    """Detector, classifier and the settings that they were made with.

    Any number of threads may use it at once.
    """

    params: Params
    detector: PortableDetector
    classifier: PortableClassifier
    operating_point: OperatingPoint | None

    def predict(self, dicom: bytes | Path, heatmap: bool = True) -> Prediction:
        """Score one mammogram, as `mammo.serving.predictor.Predictor.predict` does.

        Raises:
            mammo.dicom.reader.UnreadableDicom: if it holds no mammogram that we can read.
        """
        prepared = prepare(dicom, self.params.preprocess)
        output = self.run_networks(prepared, heatmap)
        box = prepared.placement.to_stored(output.box)
        return Prediction(output.probability, box, output.found_by, draw_heatmap(output))

    def run_networks(self, prepared: Prepared, heat: bool = True) -> NetworkOutput:
        """Find the breast, classify it and, if asked, explain the probability."""
        roi, breast = cut_breast(self.detector, prepared.image, self.params.crop)
        settings = self.classifier.settings
        picture, placement = fit_in_frame(breast, settings.image_width, settings.image_height)
        logit, coarse = self.classifier.session.run(None, {"pictures": picture[None]})
        probability = float(1 / (1 + np.exp(-np.float64(logit[0]))))
        spread = spread_heat(coarse[0], breast.shape, placement, settings) if heat else None
        return NetworkOutput(probability, roi.box, roi.found_by, breast, spread)


def load_portable(folder: Path) -> PortablePredictor:
    """Load what `exporting.export_predictor` wrote. No pickle and no torch is involved.

    Raises:
        UserError: if a file is missing, damaged or does not fit the others.
    """
    params = load_params(folder / "params.yaml", registered=True)
    try:
        described = read_json(folder / DESCRIPTION_FILE)
        settings = Settings.model_validate(described["classifier"])
        detector = PortableDetector(
            _open(folder / DETECTOR_FILE, params.threads), int(described["image_size"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / DESCRIPTION_FILE}: it describes no predictor ({type(error).__name__}); "
            "export it again"
        ) from None
    classifier = PortableClassifier(_open(folder / CLASSIFIER_FILE, params.threads), settings)
    point = read_operating_point(folder / EVALUATION_FILE, params)
    return PortablePredictor(params, detector, classifier, point)


def _open(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (its own kinds have no common base)
        raise UserError(
            f"{file}: ONNX Runtime cannot load it ({type(error).__name__}); export it again"
        ) from None
