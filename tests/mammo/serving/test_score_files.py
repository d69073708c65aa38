"""Scoring DICOM files in a process of its own: the predictor's own numbers."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mammo.base.errors import UserError
from mammo.datasets.phantom.draw import write_phantoms
from mammo.serving.predictor import load_predictor
from mammo.serving.score_files import main
from tests.imports import ROOT
from tests.support.learning import write_untrained_predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_predictor(tmp_path_factory.mktemp("predictor"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, women=1, seed=3, long_side=256)
    broken = folder / "broken.dcm"
    broken.write_bytes(b"no DICOM")
    return [*sorted(folder.rglob("train_images/**/*.dcm")), broken]


def test_scores_are_the_predictors_and_an_unreadable_file_has_none(
    predictor: Path, files: list[Path], tmp_path: Path
) -> None:
    many = files * 15  # more than one batch: decoded by several processes
    listed, scored = tmp_path / "files.csv", tmp_path / "scores.csv"
    pd.DataFrame({"path": [str(file) for file in many]}).to_csv(listed, index=False)
    command = [
        sys.executable,
        "-m",
        "mammo.serving.score_files",
        str(predictor),
        str(listed),
        str(scored),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"scored: {len(many)}/{len(many)}" in result.stdout
    scores = pd.read_csv(scored)["probability"]
    whole = load_predictor(predictor)
    expected = [whole.predict(file.read_bytes()).probability for file in files[:-1]]
    for start in range(0, len(many), len(files)):
        found = scores[start : start + len(files)]
        assert found.iloc[:-1].to_list() == pytest.approx(expected, abs=1e-6)
        assert pd.isna(found.iloc[-1])
    assert len(set(expected)) > 1


def test_a_predictor_that_is_not_whole_is_named(files: list[Path], tmp_path: Path) -> None:
    listed = tmp_path / "files.csv"
    pd.DataFrame({"path": [str(file) for file in files]}).to_csv(listed, index=False)
    with pytest.raises(UserError, match=r"nothing/params\.yaml"):
        main(tmp_path / "nothing", listed, tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()
