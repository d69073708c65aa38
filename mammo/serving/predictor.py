"""The whole chain: a DICOM file in; probability of cancer, breast box and heatmap out."""

import io
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mammo.base.settings import Classifier, Params, load_params
from mammo.classifier.network import load_classifier
from mammo.classifier.predict import predict
from mammo.cropping.find_breast import cut, find_roi
from mammo.detector.detector import Detector, load_detector
from mammo.explanation import grad_cam
from mammo.imaging.geometry import Box
from mammo.imaging.png import encode_png
from mammo.intake.prepare import prepare


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in stored coordinates
    found_by: str  # detector, mask or whole
    heatmap: bytes  # PNG: the breast, turned to the left, under Grad-CAM's heat


@dataclass(frozen=True)
class Predictor:
    """Detector, classifier and the settings that they were made with."""

    params: Params
    detector: Detector
    classifier: nn.Module
    classifier_settings: Classifier

    def predict(self, dicom: bytes) -> Prediction:
        """Score one mammogram.

        Args:
            dicom: the content of a DICOM file.

        Raises:
            mammo.dicom.reader.UnreadableDicom: if it holds no mammogram that we can read.
        """
        prepared = prepare(io.BytesIO(dicom), self.params.preprocess)
        roi = find_roi(self.detector, prepared.image, self.params.crop)
        breast = cut(prepared.image, roi.box)
        probability = float(predict(self.classifier, [breast], self.classifier_settings)[0])
        heat = grad_cam.compute_heatmap(self.classifier, breast, self.classifier_settings)
        return Prediction(
            probability=probability,
            box=prepared.placement.to_stored(roi.box),
            found_by=roi.found_by,
            heatmap=encode_png(grad_cam.draw_overlay(breast, heat)),
        )


def load_predictor(folder: Path) -> Predictor:
    """Load a predictor from a folder: params.yaml, and detector/ and classifier/ from their stages.

    No pickle is involved.

    Raises:
        UserError: if a file is missing, damaged or does not fit the others.
    """
    params = load_params(folder / "params.yaml")
    classifier, settings = load_classifier(folder / "classifier")
    return Predictor(params, load_detector(folder / "detector"), classifier, settings)
