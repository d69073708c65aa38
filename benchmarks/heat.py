"""How long a heatmap takes: by pytorch-grad-cam, and with a gradient for the head alone.

    python -m benchmarks.heat
    python -m benchmarks.heat resnet50 --height 1024 --width 512

In one run, one image at a time, in turns. An answer needs a probability and a heatmap: before
by two passes of the network and one back, now by one pass and one back from the head.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import time
from statistics import median
from typing import Annotated

import cv2
import numpy as np
import typer

from mammo.base.determinism import pin
from mammo.base.settings import load_params
from mammo.classifier.network import build_classifier
from mammo.classifier.predict import predict
from mammo.explanation.grad_cam import compute_heatmap
from mammo.serving.heat import score_and_explain, watch_feature_map


def main(
    backbone: Annotated[str, typer.Argument()] = "efficientnet_lite0",
    height: int = 384,
    width: int = 256,
    images: int = 15,
) -> None:
    """Print the medians, and the largest difference of the two heatmaps."""
    params = load_params()
    changes = {"backbone": backbone, "weights": "none", "image_height": height}
    settings = params.classifier.model_copy(update=changes | {"image_width": width})
    pin(1, params.threads)
    model = build_classifier(settings).eval()
    watch_feature_map(model)
    times: dict[str, list[float]] = {"probability": [], "grad-cam": [], "both at once": []}
    difference = 0.0
    for number in range(images + 2):
        noise = np.random.default_rng(number).normal(0, 1, (900, 600))
        smooth = cv2.GaussianBlur(noise, (0, 0), 9)
        roi = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
        stops = [time.perf_counter()]
        predict(model, [roi], settings)
        stops.append(time.perf_counter())
        before = compute_heatmap(model, roi, settings)
        stops.append(time.perf_counter())
        _, now = score_and_explain(model, roi, settings)
        stops.append(time.perf_counter())
        difference = max(difference, float(np.abs(before - now).max()))
        if number > 1:  # the first ones warm up
            for name, taken in zip(times, np.diff(stops), strict=True):
                times[name].append(float(taken))
    middle = {name: median(taken) for name, taken in times.items()}
    for name, seconds in middle.items():
        print(f"{name:14} {1000 * seconds:7.1f} ms")
    before_both = middle["probability"] + middle["grad-cam"]
    print(f"probability and heatmap: {before_both / middle['both at once']:.1f} times as fast")
    print(f"a heatmap alone: {middle['grad-cam'] / middle['both at once']:.1f} times as fast")
    print(f"largest difference of the heatmaps: {difference:.1e}")


if __name__ == "__main__":
    typer.run(main)
