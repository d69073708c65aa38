"""Tiny images with a bright half-ellipse at the left edge, where a breast would be."""

from pathlib import Path

import cv2
import numpy as np

from mammo.base.settings import Detector
from mammo.detector_training.trainer import Example
from mammo.imaging.geometry import Box

SETTINGS = Detector(
    architecture="yolo11n.yaml",
    weights="none",
    image_size=64,
    epochs=2,
    batch_size=4,
    learning_rate=0.002,
)


def half_ellipse(seed: int, height: int = 80, width: int = 64) -> tuple[np.ndarray, Box]:
    """A noisy image (uint8, HxW) and the box of its half-ellipse."""
    random = np.random.default_rng(seed)
    middle = height * random.uniform(0.4, 0.6)
    up, across = height * random.uniform(0.25, 0.35), width * random.uniform(0.4, 0.7)
    y, x = np.mgrid[:height, :width]
    inside = (x / across) ** 2 + ((y - middle) / up) ** 2 < 1
    image = np.where(inside, 150, 4) + random.normal(0, 3, inside.shape)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = Box(0, int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return image.clip(0, 255).astype(np.uint8), box


def examples(folder: Path, seeds: range) -> list[Example]:
    """One image file per seed, with its box."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for seed in seeds:
        image, box = half_ellipse(seed)
        path = folder / f"{seed}.png"
        cv2.imwrite(str(path), image)
        made.append(Example(path, box))
    return made
