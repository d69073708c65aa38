"""The registered model answers many at once as it answers one after the other."""

import base64
import json
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

from flows.tracking.register import SIGNATURE
from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.serving.finding import NOTICE
from mammo.serving.prediction import Prediction
from mammo.serving.predictor import load_predictor
from tests.imports import ROOT
from tests.support.learning import write_untrained_predictor
from tests.support.toys import environment, find_free_port, server

THREADS, IMAGES, TIMES = 8, 6, 4


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_predictor(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def dicoms() -> list[bytes]:
    return [draw_phantom_dicom(seed=seed) for seed in range(IMAGES)]


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


@pytest.fixture(scope="module")
def saved(predictor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as it is registered, in a folder of its own."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(ROOT / "flows/tracking/served_model.py"),
        artifacts={"predictor": str(predictor)},
        code_paths=[str(ROOT / "mammo")],
        signature=SIGNATURE,
        pip_requirements=[],
    )
    return folder


@pytest.fixture(scope="module")
def files(dicoms: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two mammograms, and between them a file that is none."""
    folder = tmp_path_factory.mktemp("files")
    for name, content in (("a", dicoms[0]), ("b", b"no DICOM"), ("c", dicoms[1])):
        (folder / f"{name}.dcm").write_bytes(content)
    return [str(folder / f"{name}.dcm") for name in "abc"]


def test_mlflows_server_answers_six_at_once_as_one(
    saved: Path, dicoms: list[bytes], alone: list[Prediction]
) -> None:
    server = TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(saved))))

    def asked(dicom: bytes) -> tuple[float, bytes]:
        record = {"dicom": base64.b64encode(dicom).decode()}
        answer = server.post("/invocations", json={"dataframe_records": [record]})
        (found,) = answer.json()["predictions"]
        assert found["error"] == ""
        return found["probability"], base64.b64decode(found["heatmap"])

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(asked, dicoms * TIMES))
    assert together == [(found.probability, found.heatmap) for found in alone] * TIMES


def test_a_row_that_cannot_be_read_says_why_and_costs_the_others_nothing(
    saved: Path, dicoms: list[bytes], alone: list[Prediction], files: list[str]
) -> None:
    """Bytes and paths in one table."""
    model = mlflow.pyfunc.load_model(str(saved))
    rows = [dicoms[0], files[1], files[2], b"", "/nothing.dcm", "a\0b", "/proc/self/mem"]
    found = model.predict(pd.DataFrame({"dicom": rows}))
    assert found["error"].to_list() == [
        "",
        "it is not a DICOM file",
        "",
        "it is not a DICOM file",
        "there is no such file",
        "neither bytes nor a path of a DICOM file",
        "a fault of this program (OSError), not of the file",
    ]
    assert found["notice"].to_list() == [NOTICE] * len(rows)
    good = found[found["error"] == ""]
    assert good["probability"].to_list() == [alone[0].probability, alone[1].probability]
    assert good["heatmap"].to_list() == [alone[0].heatmap, alone[1].heatmap]
    bad = found[found["error"] != ""]
    assert bad[["probability", "x1", "found_by", "heatmap"]].isna().all(axis=None)


def test_heatmaps_can_be_left_out(
    saved: Path, dicoms: list[bytes], alone: list[Prediction]
) -> None:
    model = mlflow.pyfunc.load_model(str(saved))
    found = model.predict(pd.DataFrame({"dicom": dicoms[:1]}), params={"heatmap": False})
    assert found["heatmap"].isna().all()
    assert found["probability"].to_list() == [alone[0].probability]


def environment_of_a_stranger(folder: Path) -> dict[str, str]:
    """Nothing of this project is on the path, but what comes with the model."""
    own = {"HOME": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return environment({"PYTHONPATH": "", **own})


def test_mlflow_predicts_a_csv_of_paths_in_any_folder(
    saved: Path, files: list[str], alone: list[Prediction], tmp_path: Path
) -> None:
    pd.DataFrame({"dicom": files}).to_csv(tmp_path / "files.csv", index=False)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", str(saved)]
    command += ["-i", "files.csv", "-t", "csv", "-o", "answers.json", "--env-manager", "local"]
    env = environment_of_a_stranger(tmp_path)
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    rows = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    assert [row["error"] for row in rows] == ["", "it is not a DICOM file", ""]
    assert rows[0]["probability"] == alone[0].probability
    assert (rows[1]["probability"], rows[1]["found_by"]) == (None, None)
    assert base64.b64decode(rows[2]["heatmap"]) == alone[1].heatmap


def test_mlflows_server_gives_the_answers_of_the_model(
    saved: Path, dicoms: list[bytes], alone: list[Prediction], tmp_path: Path
) -> None:
    port = find_free_port()
    command = ["mlflow", "models", "serve", "-m", str(saved)]
    command += ["-p", f"{port}", "--env-manager", "local"]
    env = environment_of_a_stranger(tmp_path)
    with server(f"http://127.0.0.1:{port}/health", *command, env=env):
        records = [
            {"dicom": base64.b64encode(content).decode()} for content in (dicoms[0], b"no DICOM")
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": records, "params": {"heatmap": False}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            good, bad = json.loads(answer.read())["predictions"]
    assert (good["probability"], good["heatmap"]) == (alone[0].probability, None)
    assert bad["error"] == "it is not a DICOM file"
    assert good["notice"] == bad["notice"] == NOTICE
