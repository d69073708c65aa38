"""Training and explaining call no operator that torch refuses on a GPU as not deterministic.

Which operators are called can be seen without a GPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mammo.base.determinism import pin
from mammo.base.settings import load_params
from mammo.classifier.changes import draw_change, render_batch
from mammo.classifier_training.examples import gather
from mammo.classifier_training.fit import fit
from mammo.detector_training.trainer import train_detector
from mammo.explanation.grad_cam import METHODS, compute_heatmap
from tests.support.half_ellipses import SETTINGS, examples
from tests.support.learning import tiny, write_breasts

REFUSED = {
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward", "avg_pool3d_backward",
    "fractional_max_pool2d_backward", "fractional_max_pool3d_backward",
    "max_unpool2d", "max_unpool3d",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward", "_upsample_bilinear2d_aa_backward",
    "_upsample_bicubic2d_aa_backward",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward",
    "nll_loss_forward", "nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward",
    "_embedding_bag_dense_backward", "put", "put_", "histc", "bincount", "median", "nanmedian",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "scatter_reduce", "scatter_reduce_",
    "kthvalue",
}  # fmt: skip
"""What `torch.use_deterministic_algorithms` lists, by the operators' own names. A bincount without
weights and a median without places would do; nobody calls those either."""


class Recorder(TorchDispatchMode):
    """Notes the name of each operator that is called, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def pinned() -> None:
    pin(0, threads=1)


def test_the_recorder_sees_what_is_called_on_the_way_back() -> None:
    pool = nn.AdaptiveAvgPool2d(2)
    with Recorder() as called:
        pool(torch.ones(1, 1, 4, 4, requires_grad=True)).sum().backward()
    assert called.names & REFUSED == {"_adaptive_avg_pool2d_backward"}


def test_the_detector_trains_without_them(tmp_path: Path) -> None:
    parts = examples(tmp_path / "a", range(4)), examples(tmp_path / "b", range(50, 52))
    with Recorder() as called:
        train_detector(*parts, SETTINGS.model_copy(update={"epochs": 1}), 3, None)
    assert {"convolution_backward", "max_pool2d_with_indices_backward"} <= called.names
    assert not called.names & REFUSED


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18", "convnext_tiny"])
def test_a_classifier_trains_and_is_explained_without_them(backbone: str, tmp_path: Path) -> None:
    settings = tiny(
        backbone=backbone, weights="none", epochs=1, image_height=96, image_width=64, average=0.9
    )
    table = write_breasts(tmp_path, women=6)
    train, validation = (
        gather(table, split, tmp_path, settings) for split in ("train", "validation")
    )
    with Recorder() as called:
        trained = fit(settings, train, validation, seed=1)
        for method in METHODS.values():
            compute_heatmap(trained.model, np.zeros((96, 64), np.uint8), settings, method)
    assert "convolution_backward" in called.names
    assert not called.names & REFUSED


def test_pictures_are_changed_without_them() -> None:
    augment = load_params().classifier.augment
    rows = [draw_change(96, 64, augment, np.random.default_rng(n)).to_row() for n in range(2)]
    with Recorder() as called:
        render_batch(torch.zeros(2, 96, 64, dtype=torch.uint8), torch.tensor(np.array(rows)))
    assert called.names
    assert not called.names & REFUSED
