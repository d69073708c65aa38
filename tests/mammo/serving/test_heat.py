"""The served heatmap is pytorch-grad-cam's, and asking for it disturbs nobody."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mammo.base.determinism import pin
from mammo.base.settings import Classifier, load_params
from mammo.classifier.network import build_classifier
from mammo.classifier.predict import predict
from mammo.explanation.grad_cam import compute_heatmap
from mammo.serving.heat import score_and_explain, watch_feature_map
from mammo.serving.heat_map import outline_region

Gray = NDArray[np.uint8]


def settings_of(backbone: str) -> Classifier:
    weights = "imagenet" if backbone == "efficientnet_lite0" else "none"
    changes = {"image_height": 96, "image_width": 64, "backbone": backbone, "weights": weights}
    return load_params().classifier.model_copy(update=changes)


def network_of(settings: Classifier) -> nn.Module:
    pin(4, threads=1)
    model = build_classifier(settings).eval()
    with torch.no_grad():  # so that most parts of an image raise the logit
        for weights in model.head.parameters():
            weights.abs_()
    watch_feature_map(model)
    return model


def rois(count: int) -> list[Gray]:
    noise = [np.random.default_rng(n).normal(0, 1, (150 + n, 90)) for n in range(count)]
    smooth = [cv2.GaussianBlur(one, (0, 0), 9) for one in noise]
    return [((one - one.min()) / np.ptp(one) * 255).astype(np.uint8) for one in smooth]


@pytest.mark.parametrize(
    "backbone",
    # densenet changes its feature map in place; convnext has parameters of no leaf.
    ["efficientnet_lite0", "resnet18", "densenet121", "convnext_tiny", "mobilenet_v3_small"],
)
def test_it_is_the_heatmap_of_grad_cam_and_the_probability_of_predict(backbone: str) -> None:
    settings = settings_of(backbone)
    model = network_of(settings)
    for roi in rois(4):
        probability, heat = score_and_explain(model, roi, settings)
        expected = compute_heatmap(model, roi, settings)
        assert heat.shape == roi.shape
        assert heat.dtype == np.float32
        assert np.abs(heat - expected).max() <= 2e-6
        assert probability == predict(model, [roi], settings)[0]
        assert heat.max() == 1


def test_a_watched_network_gives_others_what_it_gave_before() -> None:
    settings = settings_of("efficientnet_lite0")
    model = network_of(settings)
    images = rois(6)
    alone = [score_and_explain(model, roi, settings) for roi in images]
    plain = [predict(model, [roi], settings)[0] for roi in images]
    with ThreadPoolExecutor(8) as pool:
        scores = pool.map(lambda roi: predict(model, [roi], settings)[0], images * 3)
        both = list(pool.map(lambda roi: score_and_explain(model, roi, settings), images * 3))
    assert list(scores) == plain * 3
    for (probability, heat), (expected, expected_heat) in zip(both, alone * 3, strict=True):
        assert probability == expected
        assert heat.tobytes() == expected_heat.tobytes()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_image_has_the_same_probability_in_every_company() -> None:
    settings = settings_of("efficientnet_lite0")
    model = network_of(settings)
    images = rois(5)
    alone = [predict(model, [roi], settings)[0] for roi in images]
    assert list(predict(model, images, settings)) == alone


def test_the_region_is_the_spot_of_the_maximum_alone() -> None:
    heat = np.zeros((40, 30), np.float32)
    heat[5:15, 5:12] = 0.8
    heat[8, 8] = 1.0
    heat[30:35, 20:25] = 0.9  # another spot
    points = np.array(outline_region(heat))
    assert points.min(axis=0).tolist() == [5.5, 5.5]
    assert points.max(axis=0).tolist() == [11.5, 14.5]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_a_region_without_an_inside_has_an_outline_that_encloses_it(
    shape: tuple[int, int],
) -> None:
    heat = np.zeros((9, 9), np.float32)
    heat[2 : 2 + shape[0], 3 : 3 + shape[1]] = 1
    points = np.array(outline_region(heat))
    assert points.min(axis=0).tolist() == [3, 2]
    assert points.max(axis=0).tolist() == [3 + shape[1], 2 + shape[0]]
