"""Images and labels for torch: the breast cut out, at the network's size, changed at random.

Pixels stay 8-bit until a batch goes into the network. Every random change is drawn from (seed,
epoch, position in the epoch), so that it does not matter which process loads an image, or when, nor
where it is changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.base.progress import track
from mammo.base.settings import Classifier
from mammo.classifier.changes import Change, draw_change, render, render_batch
from mammo.classifier.picture import RoiSource, load_picture
from mammo.data.splits import target_of
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.gray_images import Gray
from mammo.learning.parallel import WHOLE, Part

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHE_BYTES = 2**30  # sets of images that take less stay in memory, at the network's size
Counted = tuple[int, int]
"""How many pictures of this process's part of a batch count, and how many the whole batch has."""
_LONG = 100  # batches: more of them show their progress


def normalise(pictures: Tensor) -> Tensor:
    """Turn (N, H, W) of 0..255 into (N, 3, H, W) float32, normalised as ImageNet's images were."""
    values = pictures.to(torch.float32)[:, None] / 255
    mean, std = _find_imagenet_scale(pictures.device)
    return (values - mean) / std


@cache
def _find_imagenet_scale(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (3, 1, 1), sent to a device once: it would be waited for."""
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(x, device=device)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD)
        )
    return mean, std


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
    """ROIs at the network's size, (H, W) uint8, without changes.

    Attributes:
        cache: all of them, (N, H, W), if they are at hand: in memory if that takes little. None:
            each is decoded when it is needed.
        key: what the pictures are known by if they are in a file that is mapped into memory.
    """

    def __init__(self, rois: Sequence[RoiSource], settings: Classifier):
        """Take image files or pixels; a small set is read now, a large one when it is needed.

        Raises:
            UserError: if an image cannot be read.
        """
        self.rois = rois
        self.size = settings.image_height, settings.image_width
        self.cache: Sequence[Gray] | Gray | None = None
        self.key: str | None = None
        if len(rois) * self.size[0] * self.size[1] <= CACHE_BYTES:
            with ThreadPoolExecutor(count_cores()) as pool:
                self.cache = list(pool.map(self._load, rois))

    def use_file(self, key: str, pictures: Gray) -> None:
        """Take the pictures, (N, H, W), from a file that is mapped into memory, known by `key`."""
        self.key, self.cache = key, pictures

    def __len__(self) -> int:
        return len(self.rois)

    def __getitem__(self, index: int) -> Gray:
        if self.cache is None:
            return self._load(self.rois[index])
        # torch warns of memory that cannot be written to.
        return self.cache[index] if self.key is None else np.array(self.cache[index])

    def _load(self, roi: RoiSource) -> Gray:
        return load_picture(roi, *self.size)


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
        self.order = rng.permutation(repeat_positives(targets, _choose_factor(settings), rng))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Gray, np.float32]:
        index = self.order[position]
        picture = render(self.pictures[index], self.draw(position))
        return picture, np.float32(self.targets[index])

    def draw(self, position: int) -> Change:
        """Draw the change of the picture at a position, always the same one."""
        rng = np.random.default_rng((*self.seed, position))
        return draw_change(*self.pictures.size, self.augment, rng)


class UnchangedEpoch(Dataset[tuple[Gray, NDArray[np.float64], np.float32]]):
    """The same pass over the training images with the changes beside them, not applied yet."""

    def __init__(self, epoch: Epoch):
        self.epoch, self.pictures = epoch, epoch.pictures

    def __len__(self) -> int:
        return len(self.epoch)

    def __getitem__(self, position: int) -> tuple[Gray, NDArray[np.float64], np.float32]:
        index = self.epoch.order[position]
        change = self.epoch.draw(position).to_row()
        return self.pictures[index], change, np.float32(self.epoch.targets[index])


def repeat_positives(
    targets: NDArray[np.int64], factor: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The indexes of all images, with each positive `factor` times.

    For a factor of 2.5, each positive comes twice, and half of them, drawn at random, once more.
    """
    positives = np.flatnonzero(targets == 1)
    whole, more = _split_factor(factor, len(positives))
    drawn = rng.permutation(positives)[:more]
    return np.concatenate([np.flatnonzero(targets == 0), np.repeat(positives, whole), drawn])


def count_in_epoch(targets: NDArray[np.int64], settings: Classifier) -> int:
    """How many pictures an epoch has: positives may come several times."""
    positives = int((targets == 1).sum())
    whole, more = _split_factor(_choose_factor(settings), positives)
    return len(targets) - positives + whole * positives + more


def _choose_factor(settings: Classifier) -> float:
    """How often each positive comes in an epoch."""
    return settings.balance_factor if settings.balance == "upsample" else 1.0


def _split_factor(factor: float, positives: int) -> tuple[int, int]:
    """How often all positives come, and how many of them come once more."""
    whole = int(factor)
    return whole, round((factor - whole) * positives)


def build_loader(
    dataset: "Pictures | Epoch | UnchangedEpoch",
    batch_size: int,
    device: torch.device,
    positions: Sequence[int] | None = None,
    processes: int = 1,
) -> DataLoader[Any]:
    """Load batches in the dataset's order, in worker processes if that helps.

    Pictures that are in memory need none. For a GPU, nor do those of a file that is mapped: this
    process has time while the card computes. On a CPU it has not.

    Args:
        dataset: what to load.
        batch_size: of this process.
        device: that the batches are for.
        positions: in the dataset, to be loaded in this order. None: all.
        processes: that load from the same cores.
    """
    pictures = dataset if isinstance(dataset, Pictures) else dataset.pictures
    at_hand = pictures.cache is not None and (pictures.key is None or device.type == "cuda")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=positions,
        num_workers=0 if at_hand else max(1, count_cores() // processes),
        generator=torch.Generator(),  # without it, it would draw from the one of dropout
        pin_memory=device.type == "cuda",  # so that copies need not be waited for
    )


def load_epoch(
    epoch: Epoch, settings: Classifier, device: torch.device, title: str, part: Part = WHOLE
) -> Iterator[tuple[Tensor, Tensor, Counted]]:
    """Yield the batches of an epoch, or this process's part of them.

    On a CPU the pictures are changed as they are loaded; on a GPU, there, a batch at a time.

    Args:
        epoch: what to load.
        settings: of the classifier.
        device: where the batches go.
        title: of the progress that a long epoch shows.
        part: of each batch, that this process learns from.

    Yields:
        Pictures, changed, (N, H, W) uint8; targets, (N,); and what of the batch counts.
    """
    positions: list[int] | None = None
    counted: list[Counted] = []
    if part.count > 1:
        positions, counted = part.split_batches(len(epoch), settings.batch_size)
        title = title if part.is_first else ""
    data = epoch if device.type == "cpu" else UnchangedEpoch(epoch)
    loader = build_loader(data, settings.batch_size // part.count, device, positions, part.count)
    for number, batch in enumerate(track_batches(loader, title)):
        pictures, targets = batch if device.type == "cpu" else change_batch(batch, device)
        whole = len(targets), len(targets)
        yield pictures, targets, whole if positions is None else counted[number]


def change_batch(batch: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Change a batch of `UnchangedEpoch` on a device: what `Epoch` gives, but for rounding.

    On a CPU this takes thirty times as long as OpenCV does.
    """
    pictures, changes, targets = (part.to(device, non_blocking=True) for part in batch)
    return render_batch(pictures, changes), targets


def track_batches(data: DataLoader[Any], title: str) -> Iterable[Any]:
    """The batches of a loader; if there are many of them, and a title, their progress is shown."""
    return track(data, title, len(data)) if title and len(data) > _LONG else data
