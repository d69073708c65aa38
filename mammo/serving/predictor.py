"""The whole chain: a DICOM file in; probability of cancer, breast box and heatmap out."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mammo.base.errors import UserError
from mammo.base.settings import Classifier, Params, load_params
from mammo.classifier.network import load_classifier
from mammo.classifier.predict import predict
from mammo.cropping.find_breast import FoundBy, cut, find_roi
from mammo.detector.detector import Detector, load_detector
from mammo.explanation import grad_cam
from mammo.imaging.geometry import Box
from mammo.imaging.png import encode_png
from mammo.intake.prepare import Prepared, prepare
from mammo.serving.finding import OperatingPoint
from mammo.serving.heat import Heat, score_and_explain, watch_feature_map

EVALUATION = Path("evaluate") / "metrics.json"
"""In a predictor's folder: the scores of the stage evaluate, whose threshold is the model's."""


@dataclass(frozen=True)
class Look:
    """What the networks say of a prepared image."""

    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in whole pixels of the prepared image
    found_by: FoundBy
    breast: NDArray[np.uint8]  # (h, w): that part of the image
    heat: Heat | None  # (h, w) in [0, 1]: Grad-CAM of it; None if it was not asked for


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in stored coordinates
    found_by: FoundBy
    heatmap: bytes | None  # PNG: the breast, turned to the left, under Grad-CAM's heat


@dataclass(frozen=True)
class Predictor:
    """Detector, classifier and the settings that they were made with.

    Any number of threads may use it at once: each gets the bytes that it would have got alone.
    """

    params: Params
    detector: Detector
    classifier: nn.Module
    classifier_settings: Classifier
    operating_point: OperatingPoint | None  # None: registered before there was one

    def predict(self, dicom: bytes | Path, heatmap: bool = True) -> Prediction:
        """Score one mammogram.

        Args:
            dicom: the content of a DICOM file, or its path.
            heatmap: draw one.

        Raises:
            mammo.dicom.reader.UnreadableDicom: if it holds no mammogram that we can read.
        """
        prepared = prepare(dicom, self.params.preprocess)
        look = self.look_at(prepared, heatmap)
        return Prediction(
            probability=look.probability,
            box=prepared.placement.to_stored(look.box),
            found_by=look.found_by,
            heatmap=draw_heatmap(look),
        )

    def look_at(self, prepared: Prepared, heat: bool = True) -> Look:
        """Find the breast and classify it, as the stages do: the same probability, bit for bit.

        Args:
            prepared: the image.
            heat: explain the probability, too; that takes next to no time.
        """
        roi = find_roi(self.detector, prepared.image, self.params.crop)
        breast = cut(prepared.image, roi.box)
        if heat:
            found = score_and_explain(self.classifier, breast, self.classifier_settings)
            return Look(found[0], roi.box, roi.found_by, breast, found[1])
        probability = float(predict(self.classifier, [breast], self.classifier_settings)[0])
        return Look(probability, roi.box, roi.found_by, breast, None)


def draw_heatmap(look: Look) -> bytes | None:
    """Draw the breast under the heat, as a PNG; None if there is no heat."""
    if look.heat is None:
        return None
    return encode_png(grad_cam.draw_overlay(look.breast, look.heat))


def load_predictor(folder: Path) -> Predictor:
    """Load a predictor from a folder: params.yaml, and detector/ and classifier/ from their stages.

    `EVALUATION`, if it is there, holds the operating point. No pickle is involved.

    Raises:
        UserError: if a file is missing, damaged or does not fit the others.
    """
    params = load_params(folder / "params.yaml", registered=True)
    point = _read_operating_point(folder / EVALUATION, params)
    classifier, settings = load_classifier(folder / "classifier")
    watch_feature_map(classifier)
    return Predictor(params, load_detector(folder / "detector"), classifier, settings, point)


def _read_operating_point(file: Path, params: Params) -> OperatingPoint | None:
    """The threshold of the breasts, as the stage evaluate chose it.

    Raises:
        UserError: if the file holds none.
    """
    if not file.exists():
        return None
    try:
        threshold = json.loads(file.read_text(encoding="utf-8"))["threshold"]["breast"]
        if isinstance(threshold, float) and 0 <= threshold <= 1:
            return OperatingPoint(threshold, params.evaluate.beta)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{file}: it holds no threshold of the breasts; run the stage evaluate again")
