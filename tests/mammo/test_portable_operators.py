"""Training, prediction and Grad-CAM call nothing that each processor computes its own way."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics.utils.loss
import ultralytics.utils.tal
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import TaskAlignedAssigner

from mammo.base.determinism import pin
from mammo.base.settings import load_params
from mammo.classifier.inputs import Pictures
from mammo.classifier.network import build_classifier
from mammo.classifier.predict import predict
from mammo.classifier_training import fit as training
from mammo.classifier_training.examples import Examples
from mammo.classifier_training.fit import fit
from mammo.detector_training.trainer import train_detector
from mammo.explanation.grad_cam import compute_heatmap
from mammo.patches.settings import FILE, load_pretraining
from tests.imports import ROOT
from tests.support.emulator import NATIVE, PROCESSORS, outputs_of, under_emulators
from tests.support.half_ellipses import SETTINGS, examples
from tests.support.learning import tiny
from tests.support.operators import RARE
from tests.support.portability import Watch

RECIPES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
OURS = {
    *(load_params(path).classifier.backbone for path in RECIPES),
    load_pretraining(ROOT / FILE).pretrain.backbone,
}
OTHERS = {
    "densenet121", "efficientnet_b0", "efficientnet_lite1", "efficientnet_lite2",
    "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5",
}  # fmt: skip


def train_classifier(backbone: str) -> list[str]:
    """What is not portable in an epoch of two steps, in prediction and in Grad-CAM.

    The second step is the first that averages weights.
    """
    size = {"image_height": 64, "image_width": 64, "batch_size": 2, "average": 0.9}
    settings = tiny(backbone=backbone, weights="none", freeze_batch_norm=False, epochs=1, **size)
    pin(0, threads=1)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 255, (4, 64, 64), dtype=np.uint8))
    examples = Examples(Pictures(pictures, settings), np.array([0, 1, 0, 1]), np.arange(4))
    with Watch() as watch:
        model = fit(settings, examples, examples, seed=0).model
        predict(model, pictures, settings)
        compute_heatmap(model, pictures[0], settings)
    assert {"convolution", "convolution_backward", "sigmoid", "_foreach_lerp_"} <= watch.seen
    return watch.found


def train_the_detector(folder: Path) -> list[str]:
    """What is not portable in an epoch of one step, its validation, and in finding a breast."""
    pin(0, threads=1)
    parts = examples(folder / "train", range(4)), examples(folder / "validation", range(50, 52))
    with Watch() as watch:
        found = train_detector(*parts, SETTINGS.model_copy(update={"epochs": 1}), 0)
        found.detector.find([np.zeros((80, 64), np.uint8)])
    assert {"convolution", "convolution_backward", "atan2"} <= watch.seen
    return watch.found


@pytest.mark.parametrize("backbone", sorted(OURS | OTHERS))
def test_a_classifier_calls_nothing_of_the_list(backbone: str) -> None:
    assert train_classifier(backbone) == []


def test_the_detector_calls_nothing_of_the_list(tmp_path: Path) -> None:
    assert train_the_detector(tmp_path) == []


def line_of(function: Callable[..., Any], text: str) -> int:
    """The number of the line of a function that holds `text`."""
    lines, first = inspect.getsourcelines(function)
    return next(first + at for at, line in enumerate(lines) if text in line)


@pytest.mark.parametrize(
    ("how", "operator"),
    [
        ({"fused": False, "foreach": False}, "aten::sqrt"),
        ({"fused": False, "foreach": True}, "aten::_foreach_sqrt"),
    ],
)
def test_an_optimiser_that_is_not_fused_is_caught_with_its_line(
    how: dict[str, bool], operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adamw = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *args, **kwargs: adamw(*args, **{**kwargs, **how})
    )
    line = line_of(training._train_epoch, "optimizer.step()")
    assert f"{operator}, called at mammo/classifier_training/fit.py:{line}" in train_classifier(
        "efficientnet_lite0"
    )


def test_the_original_assigner_is_caught_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics.utils.loss, "TaskAlignedAssigner", TaskAlignedAssigner)
    line = line_of(TaskAlignedAssigner.get_box_metrics, ".pow(self.alpha)")
    caught = f"aten::pow.Tensor_Scalar, called at ultralytics/utils/tal.py:{line}"
    assert caught in train_the_detector(tmp_path)


def test_the_original_overlap_is_caught_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics.utils.tal, "bbox_iou", bbox_iou)
    line = line_of(bbox_iou, ".atan()")
    caught = f"aten::atan, called at ultralytics/utils/metrics.py:{line}"
    assert caught in train_the_detector(tmp_path)


class Rooted(nn.Module):
    """A backbone's last layer that takes a root in one way or another."""

    def __init__(self, root: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.root = root

    def forward(self, x: Tensor) -> Tensor:
        return self.root(x.abs() + 1)


ROOTS = {
    "aten::sqrt": torch.sqrt,
    "aten::sqrt_": lambda x: x.sqrt_(),
    "aten::sqrt.out": lambda x: torch.sqrt(x.detach(), out=torch.empty_like(x)),
    "aten::pow.Tensor_Scalar": lambda x: x**0.5,
    "aten::pow_.Scalar": lambda x: x.pow_(0.5),
    "aten::acos": lambda x: (x / 100).acos(),
    "aten::_foreach_sqrt": lambda x: torch._foreach_sqrt([x])[0],
    "aten::_foreach_pow.Scalar": lambda x: torch._foreach_pow([x], 0.5)[0],
}


@pytest.mark.parametrize("operator", ROOTS)
def test_a_module_that_takes_roots_is_caught_with_its_line(operator: str) -> None:
    model = build_classifier(tiny(weights="none"))
    assert isinstance(model.backbone, nn.Sequential)
    model.backbone.append(Rooted(ROOTS[operator]))
    with Watch() as watch, torch.inference_mode():
        model.eval()(torch.zeros(1, 3, 64, 64))
    python = getattr(ROOTS[operator], "__code__", None)
    line = python.co_firstlineno if python else line_of(Rooted.forward, "self.root(x")
    called_at = f"tests/mammo/test_portable_operators.py:{line}"
    assert watch.found == [f"{operator}, called at {called_at}"]


class BadBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: FunctionCtx, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(context: BackwardCFunction, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient * x.abs().sqrt()


def test_a_root_in_a_backward_pass_is_caught() -> None:
    x = torch.rand(8, requires_grad=True)
    with Watch() as watch:
        BadBackward.apply(x).sum().backward()
    line = line_of(BadBackward, "x.abs().sqrt()")
    called_at = f"tests/mammo/test_portable_operators.py:{line}"
    told = f"aten::sqrt, called at {called_at}, in the backward pass of BadBackwardBackward"
    assert watch.found == [told]


def test_a_root_that_torch_itself_takes_in_a_backward_pass_is_caught() -> None:
    x = torch.rand(8, requires_grad=True)
    with Watch() as watch:
        x.pow(1.5).sum().backward()
    (told,) = watch.found
    assert told.startswith("aten::pow.Tensor_Scalar, called at tests/mammo/test_portable_op")
    assert told.endswith("in the backward pass of PowBackward0")


def test_what_is_portable_is_left_alone() -> None:
    x = torch.rand(8)
    with Watch() as watch:
        x.double().sin().to(x.dtype).exp().log().pow(2).bfloat16().sqrt()
        x.pow(1.5)
        x.pow(torch.full_like(x, 0.5))
    assert watch.found == []
    assert {"sqrt", "sin", "exp", "log", "pow"} <= watch.seen


@under_emulators
def test_the_list_is_what_differs_under_an_emulator() -> None:
    """On every processor, for the emulator computes approximate instructions its own way."""
    arguments: dict[str, list[str]] = {processor: [] for processor in (NATIVE, *PROCESSORS)}
    said = outputs_of("tests.support.operators", arguments)
    native, *others = [json.loads(output) for output in said.values()]
    for processor, other in zip(PROCESSORS, others, strict=True):
        for kind, operators in native.items():
            differing = {
                name
                for name, found in operators.items()
                if found["checksum"] != other[kind][name]["checksum"]
            }
            listed = {name for name, found in operators.items() if not found["portable"]}
            assert differing <= listed, (processor, kind)
            assert listed - differing <= RARE, (processor, kind)
