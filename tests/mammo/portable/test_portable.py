"""A predictor without torch says what torch says, but for rounding."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")

from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.detector.detection import LOWEST_CONFIDENCE
from mammo.detector.ultralytics_adapter import non_max_suppression
from mammo.exporting.export import export_predictor
from mammo.intake.prepare import prepare
from mammo.portable.predictor import choose_best, load_portable
from mammo.serving.predictor import load_predictor
from tests.imports import ROOT
from tests.support.learning import write_predictor_with

CLOSE = 1e-5


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18", "efficientnet_b0"])
def test_probability_box_and_heat_are_torchs_but_for_rounding(
    tmp_path: Path, backbone: str
) -> None:
    folder = write_predictor_with(tmp_path / "predictor", backbone)
    export_predictor(folder, tmp_path / "portable")
    with_torch, without = load_predictor(folder), load_portable(tmp_path / "portable")
    for seed in range(3):
        prepared = prepare(draw_phantom_dicom(seed=seed), with_torch.params.preprocess)
        expected, found = with_torch.run_networks(prepared), without.run_networks(prepared)
        assert abs(found.probability - expected.probability) <= CLOSE
        assert (found.box, found.found_by) == (expected.box, expected.found_by)
        assert found.heat is not None
        assert expected.heat is not None
        assert np.abs(found.heat - expected.heat).max() <= CLOSE
        assert expected.heat.max() == 1.0  # or there would be nothing to compare


@pytest.mark.parametrize("seed", range(20))
def test_the_best_box_is_the_one_that_ultralytics_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = np.concatenate(
        [rng.uniform(5, 60, (4, 200)), rng.uniform(0, 10 ** -(seed % 5), (1, 200))]
    ).astype(np.float32)
    best = non_max_suppression(
        torch.from_numpy(found.copy())[None], conf_thres=LOWEST_CONFIDENCE, max_det=1
    )[0]
    ours = choose_best(found)
    if ours is None:
        assert len(best) == 0
        return
    box, confidence = ours
    expected = best[0, :5].double().tolist()
    assert [box.x1, box.y1, box.x2, box.y2, confidence] == expected


def test_it_needs_no_torch_no_ultralytics_and_no_mlflow() -> None:
    script = (
        "import sys, mammo.portable.predictor; "
        "print({'torch', 'torchvision', 'ultralytics', 'pytorch_grad_cam', 'mlflow'} "
        "& set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert said.stdout.strip() == "set()", said.stderr
