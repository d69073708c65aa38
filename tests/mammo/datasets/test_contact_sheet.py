"""The sheet of a few women, as docs/first-run.md shows it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammo.datasets.contact_sheet import MARK, draw_contact_sheet
from mammo.datasets.phantom.draw import write_phantoms
from tests.imports import ROOT


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_phantoms(folder, women=6, seed=11, workers=1, long_side=256)
    return folder


def test_it_shows_women_and_frames_the_cancers(sample: Path, tmp_path: Path) -> None:
    draw_contact_sheet(sample, tmp_path / "docs" / "sheet.png", women=4, height=100)
    picture = np.asarray(Image.open(tmp_path / "docs" / "sheet.png"))
    assert picture.shape[0] == 4 * 104
    framed = (picture == MARK).all(axis=2).any(axis=1).reshape(4, 104).any(axis=1)
    assert framed.tolist() == [True, True, False, False]


def test_a_folder_that_is_no_data_set_is_one_sentence_and_no_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mammo.datasets.contact_sheet", str(tmp_path)]
    command.append(str(tmp_path / "sheet.png"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert str(tmp_path / "train.csv") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sheet.png").exists()
