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
    from mammo.portable.predictor import PortablePredictor
    from mammo.serving.predictor import Predictor

_COLUMNS = ["probability", "x1", "y1", "x2", "y2", "found_by", "heatmap", "error", "notice"]


class MammogramClassifier(PythonModel):
    """Predicts from DICOM files: one row for each, in the column `dicom`, as bytes or as a path."""

    predictor: Predictor | PortablePredictor

    def load_context(self, context: PythonModelContext) -> None:
        """Load detector and classifier."""
        # Not at the top: it imports torch for seconds, and registering a model runs this file, too.
        folder = Path(context.artifacts["predictor"])
        if (folder / "portable.json").exists():  # written by `mammoflow export`: without torch
            from mammo.portable.predictor import load_portable

            self.predictor = load_portable(folder)
        else:
            from mammo.serving.predictor import load_predictor

            self.predictor = load_predictor(folder)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow's)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A row of `register.SIGNATURE` for each file; the box is in pixels of the stored image.

        A file that cannot be read has its reason in `error`, and no finding; `error` is empty for
        the others. `notice` says what it may be used for; `heatmap` in `params`, whether one is
        drawn.
        """
        from mammo.serving.finding import NOTICE

        heatmap = bool((params or {}).get("heatmap", True))
        answers = (self._answer(file, heatmap) for file in model_input["dicom"])
        rows = [{**answer, "notice": NOTICE} for answer in answers]
        table = pd.DataFrame(rows, columns=_COLUMNS, index=model_input.index)
        # MLflow's server would write NaN, which is no JSON; None is null.
        return table.astype(object).where(table.notna(), None) if table["error"].any() else table

    def _answer(self, file: Any, heatmap: bool) -> dict[str, Any]:
        """The row of one file."""
        from mammo.dicom.errors import UnreadableDicom
        from mammo.intake.examine import TOO_LARGE

        if isinstance(file, str | Path) and "\0" not in str(file):
            source: bytes | Path = Path(file)
        elif isinstance(file, bytes | bytearray | memoryview):
            source = bytes(file)
        else:
            return {"error": "neither bytes nor a path of a DICOM file"}
        try:
            found = self.predictor.predict(source, heatmap)
        except UnreadableDicom as error:
            return {"error": error.reason}
        except MemoryError:
            return {"error": TOO_LARGE}
        except Exception as error:  # noqa: BLE001  (said by its kind alone: it may quote a header)
            return {"error": f"a fault of this program ({type(error).__name__}), not of the file"}
        return {
            "probability": found.probability,
            "x1": found.box.x1,
            "y1": found.box.y1,
            "x2": found.box.x2,
            "y2": found.box.y2,
            "found_by": found.found_by,
            "heatmap": found.heatmap,
            "error": "",
        }


mlflow.models.set_model(MammogramClassifier())
