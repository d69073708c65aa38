"""A variable of the environment that is empty is as one that is not set."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.imports import ROOT

SHOW = """
import json, os
import flows
import mlflow
from prefect.settings import PREFECT_API_URL
from flows.tracking.names import MODEL
print(json.dumps({
    "store": mlflow.get_tracking_uri(),
    "server": PREFECT_API_URL.value(),
    "model": MODEL,
    "left": sorted(name for name, value in os.environ.items() if name in WANTED and not value),
}))
mlflow.MlflowClient().search_experiments()
"""

EMPTY = (
    "MLFLOW_TRACKING_URI",
    "PREFECT_API_URL",
    "PREFECT_HOME",
    "DO_NOT_TRACK",
    "MAMMOFLOW_MODEL",
    "MAMMOFLOW_NOTIFY",
    "MAMMOFLOW_CLONE",
    "MAMMOFLOW_CHECKPOINTS",
    "MAMMOFLOW_STORE",
)


def test_empty_variables_are_as_none(tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SHOW.replace("WANTED", repr(EMPTY))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(EMPTY, "")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "store": "sqlite:///mlruns/mlflow.db",
        "server": None,
        "model": "mammogram-classifier",
        "left": [],
    }
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()
    assert not (tmp_path / "mlflow.db").exists()  # MLflow's own choice
