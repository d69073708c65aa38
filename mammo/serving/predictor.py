"""The whole chain: a DICOM file in; probability of cancer, breast box and heatmap out."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mammo.base.settings import Classifier, Params, load_params
from mammo.classifier.network import load_classifier
from mammo.classifier.predict import predict
from mammo.cropping.find_breast import cut_breast
from mammo.detector.detector import Detector, load_detector
from mammo.intake.prepare import Prepared, prepare
from mammo.serving.finding import OperatingPoint
from mammo.serving.heat import score_and_explain, watch_feature_map
from mammo.serving.prediction import (
    EVALUATION_FILE,
    NetworkOutput,
    Prediction,
    draw_heatmap,
    read_operating_point,
)


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
        output = self.run_networks(prepared, heatmap)
        return Prediction(
            probability=output.probability,
            box=prepared.placement.to_stored(output.box),
            found_by=output.found_by,
            heatmap=draw_heatmap(output),
        )

    def run_networks(self, prepared: Prepared, heat: bool = True) -> NetworkOutput:
        """Find the breast and classify it, as the stages do: the same probability, bit for bit.

        Args:
            prepared: the image.
            heat: explain the probability, too; that takes next to no time.
        """
        roi, breast = cut_breast(self.detector, prepared.image, self.params.crop)
        if heat:
            found = score_and_explain(self.classifier, breast, self.classifier_settings)
            return NetworkOutput(found[0], roi.box, roi.found_by, breast, found[1])
        probability = float(predict(self.classifier, [breast], self.classifier_settings)[0])
        return NetworkOutput(probability, roi.box, roi.found_by, breast, None)


def load_predictor(folder: Path) -> Predictor:
    """Load a predictor from a folder: params.yaml, and detector/ and classifier/ from their stages.

    `EVALUATION_FILE`, if it is there, holds the operating point. No pickle is involved.

    Raises:
        UserError: if a file is missing, damaged or does not fit the others.
    """
    params = load_params(folder / "params.yaml", registered=True)
    point = read_operating_point(folder / EVALUATION_FILE, params)
    classifier, settings = load_classifier(folder / "classifier")
    watch_feature_map(classifier)
    return Predictor(params, load_detector(folder / "detector"), classifier, settings, point)
