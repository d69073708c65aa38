"""That ultralytics keeps to itself."""

import io
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import torch

from mammo.detector.ultralytics_adapter import portable_iou
from tests.imports import ROOT


def test_training_writes_only_its_progress_and_nothing_at_home(tmp_path: Path) -> None:
    """In a process of its own, whose home and working folder are empty before and after."""
    script = (
        "from pathlib import Path\n"
        "from tests.mammo.detector_training.test_trainer import train\n"
        f"train(Path({str(tmp_path / 'images')!r}), epochs=1)\n"
    )
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("detector: ") for line in done.stdout.splitlines()), done.stdout
    assert "detector: epoch 1/1" in done.stdout
    assert done.stderr == ""
    assert list(home.rglob("*")) == []
    ours = [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]
    assert ours == []


def test_the_portable_iou_is_the_originals_but_for_rounding() -> None:
    from ultralytics.utils.metrics import bbox_iou  # after the adapter, which sets it up

    generator = torch.Generator().manual_seed(1)
    corners = 50 * torch.rand(1000, 4, generator=generator)
    sizes = 1 + 30 * torch.rand(1000, 4, generator=generator)
    one = torch.cat([corners[:, :2], corners[:, :2] + sizes[:, :2]], 1).requires_grad_()
    other = torch.cat([corners[:, 2:], corners[:, 2:] + sizes[:, 2:]], 1)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for function in (portable_iou, bbox_iou):
        one.grad = None
        overlap = function(one, other, xywh=False, CIoU=True)
        overlap.sum().backward()
        assert one.grad is not None
        found.append((overlap.detach(), one.grad.clone()))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    assert torch.equal(portable_iou(one, other, xywh=False), bbox_iou(one, other, xywh=False))


def test_pillow_keeps_its_own_way_to_open_files() -> None:
    """Or damaged JPEG 2000 would end, after a try to install a package, with an ImportError."""
    assert PIL.Image.open.__module__ == "PIL.Image"
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(io.BytesIO(b"no picture"))
