"""A predictor without torch says what torch says, but for rounding."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("onnx", reason="no onnx")
pytest.importorskip("onnxruntime", reason="no onnxruntime")

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import load_params
from mammo.classifier.network import build_classifier, save_classifier
from mammo.datasets.phantom.draw import phantom_dicom_bytes
from mammo.detector.detection import LOWEST_CONFIDENCE
from mammo.detector.ultralytics_adapter import non_max_suppression
from mammo.exporting.export import export_predictor
from mammo.intake.prepare import prepare
from mammo.portable.predictor import choose_best, load_portable
from mammo.serving.predictor import load_predictor
from tests.imports import ROOT
from tests.support.learning import write_untrained_predictor

CLOSE = 1e-5


def with_backbone(folder: Path, backbone: str) -> Path:
    """A predictor with random weights and another backbone."""
    write_untrained_predictor(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["classifier"]["backbone"] = backbone
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_params(folder / "params.yaml").classifier
    pin(3, 1)
    model = build_classifier(settings)
    with torch.no_grad():
        for weights in model.head.parameters():
            weights.normal_(std=0.05)
    save_classifier(model, settings, folder / "classifier")
    return folder


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18", "efficientnet_b0"])
def test_probability_box_and_heat_are_torchs_but_for_rounding(
    tmp_path: Path, backbone: str
) -> None:
    folder = with_backbone(tmp_path / "predictor", backbone)
    export_predictor(folder, tmp_path / "portable")
    with_torch, without = load_predictor(folder), load_portable(tmp_path / "portable")
    for seed in range(3):
        prepared = prepare(phantom_dicom_bytes(seed=seed), with_torch.params.preprocess)
        expected, found = with_torch.run_networks(prepared), without.look_at(prepared)
        assert abs(found.probability - expected.probability) <= CLOSE
        assert (found.box, found.found_by) == (expected.box, expected.found_by)
        assert found.heat is not None
        assert expected.heat is not None
        assert np.abs(found.heat - expected.heat).max() <= CLOSE
        assert expected.heat.max() == 1.0  # or there would be nothing to compare


def test_the_same_networks_are_the_same_bytes(tmp_path: Path) -> None:
    folder = write_untrained_predictor(tmp_path / "predictor")
    written = []
    for name in ("a", "b"):
        export_predictor(folder, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    for content in written[0].values():
        assert str(ROOT).encode() not in content
        assert b"/lib/python" not in content


def test_a_backbone_without_a_formula_is_refused(tmp_path: Path) -> None:
    folder = with_backbone(tmp_path / "predictor", "densenet121")
    with pytest.raises(UserError, match="no formula"):
        export_predictor(folder, tmp_path / "portable")
    assert not (tmp_path / "portable").exists()


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
