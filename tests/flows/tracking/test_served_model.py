"""The registered model answers many at once as it answers one after the other."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

from flows.tracking.register import SIGNATURE
from mammo.datasets.phantom.draw import phantom_dicom_bytes
from mammo.serving.predictor import Prediction, load_predictor
from tests.imports import ROOT
from tests.support.learning import write_untrained_predictor

THREADS, IMAGES, TIMES = 8, 6, 4


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_predictor(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def dicoms() -> list[bytes]:
    return [phantom_dicom_bytes(seed=seed) for seed in range(IMAGES)]


@pytest.fixture(scope="module")
def alone(predictor: Path, dicoms: list[bytes]) -> list[Prediction]:
    loaded = load_predictor(predictor)
    return [loaded.predict(dicom) for dicom in dicoms]


def test_no_two_images_have_the_same_heatmap(alone: list[Prediction]) -> None:
    assert len({found.heatmap for found in alone}) == IMAGES


def test_eight_threads_get_the_bytes_of_one(
    predictor: Path, dicoms: list[bytes], alone: list[Prediction]
) -> None:
    loaded = load_predictor(predictor)  # as new: what is made at the first use is shared as well
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(loaded.predict, dicoms * TIMES)) == alone * TIMES


def test_mlflows_server_answers_six_at_once_as_one(
    predictor: Path, dicoms: list[bytes], alone: list[Prediction], tmp_path: Path
) -> None:
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(ROOT / "flows/tracking/served_model.py"),
        artifacts={"predictor": str(predictor)},
        signature=SIGNATURE,
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    server = TestClient(scoring_server.init(model))

    def asked(dicom: bytes) -> tuple[float, bytes]:
        record = {"dicom": base64.b64encode(dicom).decode()}
        answer = server.post("/invocations", json={"dataframe_records": [record]})
        (found,) = answer.json()["predictions"]
        return found["probability"], base64.b64decode(found["heatmap"])

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(asked, dicoms * TIMES))
    assert together == [(found.probability, found.heatmap) for found in alone] * TIMES
