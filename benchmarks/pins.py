"""What the pins of `mammo.pins` cost: the same work with them and with each library's own choice.

    python -m benchmarks.pins            # about three minutes on two cores at rest

Each measurement is a process of its own, taking turns, and the median of three is given. Without
the pins, libraries are loaded, and made to compute, before `mammo` could set anything.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 3
WORK = ("reading JPEG 2000 films", "training the classifier", "predicting", "training the detector")


def main() -> None:
    """Print seconds with and without, and their ratio."""
    print(f"{'':28}{'pinned':>10}{'free':>10}{'pinned / free':>16}")
    seconds: dict[str, dict[str, list[float]]] = {
        how: {work: [] for work in WORK} for how in ("pinned", "free")
    }
    for _ in range(ROUNDS):
        for how, found in seconds.items():
            for work, taken in zip(WORK, _in_child(how), strict=True):
                found[work].append(taken)
    for work in WORK:
        pinned, free = (statistics.median(seconds[how][work]) for how in ("pinned", "free"))
        print(f"{work:28}{pinned:8.1f} s{free:8.1f} s{pinned / free:16.2f}")


def _in_child(how: str) -> list[float]:
    env = {name: value for name, value in os.environ.items() if name not in _pinned_names()}
    command = [sys.executable, "-c", f"from benchmarks.pins import measure; measure({how!r})"]
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(word) for word in said.splitlines()[-1].split()]


def _pinned_names() -> set[str]:
    from mammo.pins import PINS

    return set(PINS)


def measure(how: str) -> None:
    """Print the seconds of each work in WORK, in this process."""
    if how == "free":
        _let_libraries_choose()
    from mammo.base import determinism as reproducibility
    from mammo.base.settings import load_params

    if how == "free":
        reproducibility.check_pins = lambda: None
    params = load_params()
    reproducibility.pin(1, params.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(*(f"{_time(work):.3f}" for work in _works(params, Path(folder))))


def _let_libraries_choose() -> None:
    """They choose their kernels when they are loaded, or compute for the first time."""
    import cv2
    import numpy as np
    import torch

    picture = np.ones((64, 64), np.float32)
    cv2.resize(picture, (32, 32))
    tensor = torch.from_numpy(picture)
    torch.nn.functional.conv2d(tensor[None, None], tensor[None, None, :3, :3]).exp()
    torch.mm(tensor, tensor).sqrt()
    np.exp(picture @ picture)


def _works(params: object, folder: Path) -> list[Callable[[], object]]:
    import cv2
    import numpy as np

    from mammo.base.settings import Params
    from mammo.classifier.inputs import Pictures
    from mammo.classifier.predict import predict
    from mammo.classifier_training.examples import Examples
    from mammo.classifier_training.fit import fit
    from mammo.datasets.phantom.draw import draw_phantom_dicom
    from mammo.detector_training.trainer import Example, train_detector
    from mammo.imaging.geometry import Box
    from mammo.intake.prepare import prepare

    assert isinstance(params, Params)
    film = folder / "film.dcm"
    film.write_bytes(draw_phantom_dicom(long_side=2048))
    rng = np.random.default_rng(1)
    classifier = params.classifier.model_copy(update={"epochs": 1})
    size = classifier.image_height, classifier.image_width
    rois = list(rng.integers(0, 256, (64, *size), dtype=np.uint8))
    targets = np.arange(64) % 2
    examples = Examples(Pictures(rois, classifier), targets, np.arange(64))
    few = Examples(Pictures(rois[:4], classifier), targets[:4], np.arange(4))
    model = fit(classifier.model_copy(update={"balance": "none"}), few, few, 1).model
    squares = []
    for number in range(32):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), rois[number])
        squares.append(Example(path, Box(0, 20, size[1] * 0.7, size[0] - 20)))
    detector = params.detector.model_copy(update={"epochs": 3})
    return [
        lambda: [prepare(film, params.preprocess) for _ in range(20)],
        lambda: fit(classifier, examples, few, 1),
        lambda: predict(model, rois, classifier),
        lambda: train_detector(squares, squares[:8], detector, 1),
    ]


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
