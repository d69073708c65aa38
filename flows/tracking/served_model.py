"""The registered model, as MLflow loads it: DICOM in; probability, breast box and heatmap out.

MLflow stores this file as text and runs it when the model is loaded: no pickle. `mammo` travels
with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from mammo.serving.predictor import Predictor


class MammogramClassifier(PythonModel):
    """Predicts from DICOM files: one row for each, as bytes in the column `dicom`."""

    predictor: Predictor

    def load_context(self, context: PythonModelContext) -> None:
        """Load detector and classifier."""
        # Here, since it imports torch for seconds: MLflow runs this file to register a model, too.
        from mammo.serving.predictor import load_predictor

        self.predictor = load_predictor(Path(context.artifacts["predictor"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow's)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002  (MLflow's)
    ) -> pd.DataFrame:
        """A row of `register.SIGNATURE` for each file; the box is in pixels of the stored image."""
        rows = []
        for content in model_input["dicom"]:
            found = self.predictor.predict(bytes(content))
            rows.append(
                {
                    "probability": found.probability,
                    "x1": found.box.x1,
                    "y1": found.box.y1,
                    "x2": found.box.x2,
                    "y2": found.box.y2,
                    "found_by": found.found_by,
                    "heatmap": found.heatmap,
                }
            )
        return pd.DataFrame(rows)


mlflow.models.set_model(MammogramClassifier())
