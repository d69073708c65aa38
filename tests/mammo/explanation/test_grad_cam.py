"""Heatmaps lie where the network looks; the pointing game counts what it should."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam import GradCAM, GradCAMElementWise, HiResCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import nn

from mammo.base.determinism import pin
from mammo.base.settings import Classifier, load_params
from mammo.classifier.inputs import to_input
from mammo.classifier.network import build_classifier, get_cam_layer
from mammo.explanation import grad_cam
from mammo.explanation.grad_cam import (
    METHODS,
    compute_chance,
    compute_heatmap,
    hits_lesion,
)
from mammo.explanation.overlay import draw_overlay, find_peak
from mammo.imaging.geometry import Box


@pytest.fixture(scope="module")
def settings() -> Classifier:
    changes = {"image_height": 64, "image_width": 48, "head_width": 4}
    return load_params().classifier.model_copy(update=changes)


@pytest.fixture(scope="module")
def network(settings: Classifier) -> nn.Module:
    pin(1, threads=1)
    return build_classifier(settings).eval()


class BrightSpots(nn.Module):
    """A network whose logit is the mean brightness of 8 x 8 cells, above a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 8, stride=8)
        nn.init.constant_(self.cells.weight, 1 / 192)
        assert self.cells.bias is not None
        nn.init.constant_(self.cells.bias, 0.0)
        self.map = nn.Sequential(self.cells, nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.map(images).mean(dim=(1, 2, 3))
        return logits


@pytest.fixture
def bright_spots(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(grad_cam, "get_cam_layer", lambda model: model.map)
    return BrightSpots().eval()


def test_a_network_of_either_precision_has_the_heatmap_of_float32(settings: Classifier) -> None:
    roi = np.random.default_rng(0).integers(0, 256, (80, 50), np.uint8)
    heats = []
    for precision in ("float32", "bfloat16"):
        wanted = settings.model_copy(update={"precision": precision})
        pin(1, threads=1)
        network = build_classifier(wanted).eval()
        heats.append(compute_heatmap(network, roi, wanted))
        assert network.precision == precision
    assert np.array_equal(heats[0], heats[1])


@pytest.mark.parametrize("shape", [(64, 48), (128, 40), (30, 90), (17, 5)])
def test_heatmap_has_the_rois_size_and_range(
    network: nn.Module, settings: Classifier, shape: tuple[int, int]
) -> None:
    roi = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    heat = compute_heatmap(network, roi, settings)
    assert heat.shape == shape
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() in (0, 1)


def test_heatmap_twice_is_the_same_bytes(network: nn.Module, settings: Classifier) -> None:
    roi = np.random.default_rng(3).integers(0, 256, (100, 60), dtype=np.uint8)
    first = compute_heatmap(network, roi, settings)
    assert first.tobytes() == compute_heatmap(network, roi, settings).tobytes()


def test_heatmap_of_a_frozen_network_is_that_of_a_learning_one(
    network: nn.Module, settings: Classifier
) -> None:
    roi = np.random.default_rng(3).integers(0, 256, (64, 48), dtype=np.uint8)
    free = compute_heatmap(network, roi, settings)
    network.requires_grad_(False)
    try:
        frozen = compute_heatmap(network, roi, settings)
    finally:
        network.requires_grad_(True)
    assert frozen.tobytes() == free.tobytes()


def test_heatmap_is_that_of_the_library_on_the_network_itself(
    network: nn.Module, settings: Classifier
) -> None:
    roi = np.random.default_rng(3).integers(0, 256, (64, 48), dtype=np.uint8)
    inputs = to_input(roi, 64, 48)[None]
    with GradCAM(network, [get_cam_layer(network)]) as cam:
        theirs = cam(inputs, [BinaryClassifierOutputTarget(1)])[0]
    network.zero_grad()
    assert np.array_equal(compute_heatmap(network, roi, settings), theirs / theirs.max())


def test_each_method_has_a_heatmap_of_its_own(network: nn.Module, settings: Classifier) -> None:
    roi = np.random.default_rng(3).integers(0, 256, (64, 48), dtype=np.uint8)
    first, second = (compute_heatmap(network, roi, settings, METHODS[name]) for name in METHODS)
    assert first.max() == second.max() == 1
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize(
    ("relative", "same_as"),
    [(HiResCAM, "grad_cam"), (XGradCAM, "grad_cam"), (GradCAMElementWise, "layer_cam")],
)
def test_what_is_no_method_of_its_own_gives_the_map_of_one_that_is(
    network: nn.Module, settings: Classifier, relative: type[BaseCAM], same_as: str
) -> None:
    roi = np.random.default_rng(3).integers(0, 256, (64, 48), dtype=np.uint8)
    expected = compute_heatmap(network, roi, settings, METHODS[same_as])
    assert np.abs(compute_heatmap(network, roi, settings, relative) - expected).max() < 1e-4


def test_heatmap_leaves_no_trace_in_the_network(network: nn.Module, settings: Classifier) -> None:
    compute_heatmap(network, np.full((64, 48), 90, np.uint8), settings)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


# An input of 64 x 48: the ROI of 32 x 24 is enlarged, 128 x 96 reduced, 128 x 40 padded at the
# right (to 64 x 20), 32 x 96 below (to 16 x 48).
@pytest.mark.parametrize("shape", [(64, 48), (32, 24), (128, 96), (128, 40), (32, 96)])
@pytest.mark.parametrize("position", [(0.3, 0.3), (0.8, 0.2), (0.7, 0.7)])
def test_peak_is_where_the_network_sees_something(
    bright_spots: nn.Module,
    settings: Classifier,
    shape: tuple[int, int],
    position: tuple[float, float],
) -> None:
    height, width = shape
    y, x = position[0] * height, position[1] * width
    roi = np.zeros(shape, np.uint8)
    scale = min(64 / height, 48 / width)
    radius = 4 / scale  # half a cell
    rows, columns = np.mgrid[:height, :width]
    roi[(abs(rows + 0.5 - y) < radius) & (abs(columns + 0.5 - x) < radius)] = 255
    found = find_peak(compute_heatmap(bright_spots, roi, settings))
    assert found is not None
    cell = 8 / scale
    assert abs(found[0] - x) <= cell
    assert abs(found[1] - y) <= cell


def test_nothing_seen_is_no_heat_and_no_peak(bright_spots: nn.Module, settings: Classifier) -> None:
    heat = compute_heatmap(bright_spots, np.zeros((64, 48), np.uint8), settings)
    assert not heat.any()
    assert find_peak(heat) is None


def test_peak_of_a_plateau_is_its_centre_even_with_a_second_plateau() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[0:5, 0:3] = 1
    heat[12:20, 12:20] = 1
    assert find_peak(heat) == (1.0, 2.0)


def test_a_hit_needs_the_peak_in_a_box_or_within_the_tolerance() -> None:
    lesions = [Box(10, 10, 20, 20), Box(50, 50, 60, 60)]
    assert hits_lesion((15, 15), lesions, 0)
    assert hits_lesion((55, 59.5), lesions, 0)
    assert not hits_lesion((22, 15), lesions, 0)
    assert hits_lesion((22, 15), lesions, 3)
    assert not hits_lesion((35, 35), lesions, 8)
    assert not hits_lesion(None, lesions, 8)
    assert not hits_lesion((5, 5), [], 8)


def test_chance_is_the_share_of_the_mask() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True  # 800 pixels
    assert compute_chance(mask, [Box(0, 0, 10, 10)], 0) == pytest.approx(100 / 800)
    assert compute_chance(mask, [Box(5, 5, 15, 15)], 2) == pytest.approx(14 * 14 / 800)
    assert compute_chance(mask, [Box(15, 0, 25, 10)], 0) == pytest.approx(
        50 / 800
    )  # half beside it
    overlapping = [Box(0, 0, 10, 10), Box(5, 0, 15, 10)]
    assert compute_chance(mask, overlapping, 0) == pytest.approx(150 / 800)
    assert compute_chance(mask, [], 8) == 0


@given(
    st.tuples(st.floats(-5, 35), st.floats(-5, 35)),
    st.tuples(st.floats(0.5, 20), st.floats(0.5, 20)),
    st.floats(0, 6),
)
def test_chance_counts_the_pixels_that_would_hit(
    corner: tuple[float, float], size: tuple[float, float], tolerance: float
) -> None:
    lesion = Box(corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    would = [hits_lesion((x, y), [lesion], tolerance) for y in range(30) for x in range(30)]
    assert compute_chance(np.ones((30, 30), bool), [lesion], tolerance) == pytest.approx(
        np.mean(would)
    )


def test_overlay_keeps_the_image_gray_where_it_is_cold_and_visible_where_hot() -> None:
    roi = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (50, 1))
    heat = np.zeros((50, 50), np.float32)
    heat[:25] = 1
    picture = draw_overlay(roi, heat)
    assert picture.shape == (50, 50, 3)
    assert picture.dtype == np.uint8
    assert (picture[25:] == roi[25:, :, None]).all()
    hot = picture[:25].astype(int)
    assert (np.ptp(hot, axis=2) > 20).any()  # coloured
    assert (np.diff(hot.sum(axis=2), axis=1) > 0).all()  # the ramp below still rises


def test_overlay_outlines_lesions_and_marks_the_peak() -> None:
    roi, cold = np.full((60, 60), 40, np.uint8), np.zeros((60, 60), np.float32)
    plain = draw_overlay(roi, cold)
    outlined = draw_overlay(roi, cold, [Box(10, 20, 30, 40)])
    changed = np.argwhere((outlined != plain).any(axis=2))
    assert changed.min(axis=0).tolist() == [20, 10]
    assert changed.max(axis=0).tolist() == [39, 29]
    assert (outlined[30, 20] == plain[30, 20]).all()  # an outline, not a patch
    marked = np.argwhere((draw_overlay(roi, cold, peak_at=(45.0, 50.0)) != plain).any(axis=2))
    assert marked.mean(axis=0).tolist() == pytest.approx([50, 45], abs=0.5)
