"""Images and labels for torch: the breast cut out, at the network's size, changed at random.

Pixels stay 8-bit until a batch goes into the network. Every random change is drawn from (seed,
epoch, position in the epoch), so that it does not matter which process loads an image, or when.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mammo.base.errors import UserError
from mammo.base.processor import available_cores
from mammo.base.settings import Augment, Classifier
from mammo.data.splits import target_of
from mammo.imaging.fitting import fit_in_frame
from mammo.outs.gray_images import read_gray

Gray = NDArray[np.uint8]
Roi = Path | Gray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHE_BYTES = 2**30  # sets of images that take less stay in memory, at the network's size


def normalise(pictures: Tensor) -> Tensor:
    """Turn (N, H, W) of 0..255 into (N, 3, H, W) float32, normalised as ImageNet's images were."""
    values = pictures.to(torch.float32)[:, None] / 255
    mean = torch.tensor(IMAGENET_MEAN, device=pictures.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=pictures.device)[:, None, None]
    return (values - mean) / std


def to_input(roi: Gray, height: int, width: int) -> Tensor:
    """One ROI, (h, w) of 0..255, as the network takes it: (3, height, width) float32."""
    picture, _ = fit_in_frame(roi, width, height)
    return normalise(torch.from_numpy(picture)[None])[0]


def label_rois(
    manifest: pd.DataFrame, split: pd.DataFrame, rois: pd.DataFrame, settings: Classifier
) -> pd.DataFrame:
    """Join each ROI with the label and the split of its image.

    Returns:
        One row an image of `rois`, sorted by patient and image: patient_id, image_id, laterality,
        split, target (0 or 1, by classifier.target) and the ROI's path.

    Raises:
        UserError: if an ROI is of an image or a woman that the other tables do not know.
    """
    labels = manifest[["image_id", "laterality"]].assign(
        target=target_of(manifest, settings.target)
    )
    table = rois[["patient_id", "image_id", "path"]]
    table = table.merge(labels, on="image_id", how="left", validate="one_to_one")
    table = table.merge(split, on="patient_id", how="left", validate="many_to_one")
    unknown = table.loc[table[["target", "split"]].isna().any(axis="columns"), "image_id"]
    if len(unknown):
        raise UserError(
            f"{len(unknown)} images of the ROIs are not in the manifest or not in the split, such"
            f" as {unknown.iloc[0]}; run the stages crop_rois and split again"
        )
    table["target"] = table["target"].astype(int)
    return table.sort_values(["patient_id", "image_id"], ignore_index=True)


class Pictures(Dataset[Gray]):
    """ROIs at the network's size, (H, W) uint8, without changes."""

    def __init__(self, rois: Sequence[Roi], settings: Classifier):
        """Take image files or pixels; a small set is read now, a large one when it is needed."""
        self.rois = rois
        self.size = settings.image_height, settings.image_width
        self.cache: list[Gray] | None = None
        if len(rois) * self.size[0] * self.size[1] <= CACHE_BYTES:
            with ThreadPoolExecutor(available_cores()) as pool:
                self.cache = list(pool.map(self._load, rois))

    def __len__(self) -> int:
        return len(self.rois)

    def __getitem__(self, index: int) -> Gray:
        return self.cache[index] if self.cache is not None else self._load(self.rois[index])

    def _load(self, roi: Roi) -> Gray:
        height, width = self.size
        return fit_in_frame(read_gray(roi) if isinstance(roi, Path) else roi, width, height)[0]


class Epoch(Dataset[tuple[Gray, np.float32]]):
    """One pass over the training images, in random order: positives upsampled, images changed."""

    def __init__(
        self,
        pictures: Pictures,
        targets: NDArray[np.int64],
        settings: Classifier,
        seed: int,
        epoch: int,
    ):
        self.pictures, self.targets = pictures, targets
        self.augment = settings.augment
        self.seed = seed, epoch
        rng = np.random.default_rng(self.seed)
        factor = settings.balance_factor if settings.balance == "upsample" else 1.0
        self.order = rng.permutation(repeat_positives(targets, factor, rng))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Gray, np.float32]:
        index = self.order[position]
        rng = np.random.default_rng((*self.seed, position))
        return augment(self.pictures[index], self.augment, rng), np.float32(self.targets[index])


def repeat_positives(
    targets: NDArray[np.int64], factor: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The indexes of all images, with each positive `factor` times.

    For a factor of 2.5, each positive comes twice, and half of them, drawn at random, once more.
    """
    positives = np.flatnonzero(targets == 1)
    whole = int(factor)
    drawn = rng.permutation(positives)[: round((factor - whole) * len(positives))]
    return np.concatenate([np.flatnonzero(targets == 0), np.repeat(positives, whole), drawn])


def augment(picture: Gray, settings: Augment, rng: np.random.Generator) -> Gray:
    """Flip, turn, scale and move a picture, and change its brightness and contrast, at random.

    Every number is drawn whatever the settings, so switching one change off leaves the others.
    """
    height, width = picture.shape
    flip_x, flip_y = rng.random(2) < (settings.horizontal_flip, settings.vertical_flip)
    angle, zoom, shift_x, shift_y, brightness, contrast = rng.uniform(-1, 1, 6)
    centre = (width - 1) / 2, (height - 1) / 2
    turn = cv2.getRotationMatrix2D(centre, angle * settings.rotation, 1 + zoom * settings.zoom)
    turn[:, 2] += shift_x * settings.shift * width, shift_y * settings.shift * height
    flip = np.array(
        [
            [-1.0 if flip_x else 1.0, 0.0, width - 1.0 if flip_x else 0.0],
            [0.0, -1.0 if flip_y else 1.0, height - 1.0 if flip_y else 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    moved = cv2.warpAffine(picture, turn @ flip, (width, height), flags=cv2.INTER_LINEAR)
    levels = np.arange(256.0)
    levels = (levels - moved.mean()) * (1 + contrast * settings.contrast) + moved.mean()
    levels *= 1 + brightness * settings.brightness
    return np.asarray(cv2.LUT(moved, levels.round().clip(0, 255).astype(np.uint8)), np.uint8)


def build_loader(dataset: Pictures | Epoch, settings: Classifier) -> DataLoader[Any]:
    """Load batches in the dataset's order, in worker processes if image files must be read."""
    pictures = dataset.pictures if isinstance(dataset, Epoch) else dataset
    return DataLoader(
        dataset,
        batch_size=settings.batch_size,
        num_workers=0 if pictures.cache is not None else available_cores(),
        generator=torch.Generator(),  # without it, it would draw from the one of dropout
        pin_memory=torch.cuda.is_available(),
    )
