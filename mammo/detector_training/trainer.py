"""Training the YOLO breast detector.

The loss, the augmentation and the mean average precision are ultralytics'. Its trainer works in a
temporary folder; the weights of the best epoch stay in memory, in single precision. With a folder
for checkpoints, a training that was interrupted goes on after its last complete epoch.
"""

import math
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from mammo.base.determinism import use_deterministic_kernels
from mammo.base.errors import UserError
from mammo.base.progress import say, track
from mammo.base.settings import Detector as Settings
from mammo.detector.detection import box_in_square
from mammo.detector.detector import (
    Detector,
    build_detector,
    build_network,
)
from mammo.detector.ultralytics_adapter import (
    DetectionModel,
    DetectionTrainer,
    build_yolo_dataset,
    keep_threads,
)
from mammo.detector_training.resume import collect_trainer_state, restore_trainer
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import read_gray
from mammo.kept import checkpoint
from mammo.kept.checkpoint import Checkpoint
from mammo.learning.device import choose_device
from mammo.learning.weights import read_weights, select_prefix

# A preprocessed image shows one breast, at its left edge. Mosaics, left-right flips and
# ultralytics' own scaling and shifting, which put grey to the left of the breast, would make images
# that never occur. `shrink` scales and shifts instead.
_RECIPE: dict[str, Any] = {
    "optimizer": "AdamW",
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "cos_lr": True,
    "lrf": 0.05,
    "warmup_epochs": 1.0,
    "warmup_bias_lr": 0.0,
    "mosaic": 0.0,
    # In the last ten epochs ultralytics rebuilds its transforms, without `shrink`: the boxes of
    # breasts of full size become tighter (mean IoU 0.960 on the sample's validation images instead
    # of 0.912).
    "close_mosaic": 10,
    "translate": 0.0,
    "scale": 0.0,
    "fliplr": 0.0,
    "flipud": 0.5,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.3,
}

_SMALLEST = 0.7
"""The smallest factor by which `shrink` scales; width and height each have their own factor."""

_NORM_MOMENTUM = 0.1
"""Torch's default. With ultralytics' 0.03 the statistics of batch norm lag behind by about 30
steps, which is long in a short training: the same weights score well in training, badly later."""

_CURVES = {
    "train/box_loss": "train_box_loss",
    "train/cls_loss": "train_class_loss",
    "train/dfl_loss": "train_dfl_loss",
    "val/box_loss": "validation_box_loss",
    "val/cls_loss": "validation_class_loss",
    "val/dfl_loss": "validation_dfl_loss",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
}


@dataclass(frozen=True)
class Example:
    """A preprocessed image and where its breast is, in pixels of that image."""

    image: Path
    box: Box


@dataclass(frozen=True)
class Training:
    """The result of a training: the network of the best epoch, and the figures of all epochs."""

    detector: Detector
    curves: pd.DataFrame  # one row an epoch: losses, precision, recall, map50, map50_95
    best_epoch: int  # from 1
    map50: float  # on validation, at best_epoch
    map50_95: float


def train_detector(
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: Settings,
    seed: int,
    checkpoints: Path | None = None,
) -> Training:
    """Train on `train`; keep the weights of the epoch with the best mAP50-95 on `validation`.

    Uses the device that `choose_device` chooses, deterministic kernels only, and as many threads as
    torch is set to use. `checkpoints` is a folder for the state after each epoch: with it, a
    training that was interrupted goes on.

    Raises:
        UserError: if there is nothing to train on or to validate on, the network or the weights
            cannot be found, the loss is not finite any more, or the GPU's memory is too small; or
            as `choose_device`.
    """
    device = choose_device()
    for examples, what in ((train, "train on"), (validation, "validate on")):
        if not examples:
            raise UserError(f"there is no image with a breast box to {what}")
    with tempfile.TemporaryDirectory(prefix="detector-") as folder:
        _write_squares({"train": train, "val": validation}, Path(folder), settings.image_size)
        keep_threads(torch.get_num_threads())
        deterministic = torch.are_deterministic_algorithms_enabled()
        cublas = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
        trainer = _Trainer(settings, seed, Path(folder), device)
        if checkpoints is not None:
            trainer.use_checkpoints(
                checkpoints, _name_checkpoints(settings, seed, device, train, validation)
            )
        try:
            if len(trainer.rows) < settings.epochs:
                trainer.train()
        finally:  # ultralytics leaves the process nondeterministic, whatever it was before
            if deterministic:
                use_deterministic_kernels()
            if cublas is not None:
                os.environ["CUBLAS_WORKSPACE_CONFIG"] = cublas
    detector = build_detector(settings.architecture, settings.image_size)
    detector.model.load_state_dict(trainer.best_weights)
    curves = pd.DataFrame(trainer.rows)
    best = curves.loc[curves["epoch"] == trainer.best_epoch].iloc[0]
    return Training(
        detector=detector,
        curves=curves,
        best_epoch=trainer.best_epoch,
        map50=float(best["map50"]),
        map50_95=float(best["map50_95"]),
    )


class _Trainer(DetectionTrainer):
    """ultralytics' trainer with our data; the best weights stay in memory instead of in files."""

    # Without types in ultralytics.
    args: Any
    ema: Any
    metrics: Any
    loss: Any
    train: Any
    label_loss_items: Any

    def __init__(self, settings: Settings, seed: int, folder: Path, device: torch.device) -> None:
        self.settings = settings
        self.folder = folder
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_epoch = 0
        self.rows: list[dict[str, float]] = []
        self.checkpoints: tuple[Path, str] | None = None
        self.found: Checkpoint | None = None
        overrides = {
            **_RECIPE,
            "task": "detect",
            "model": settings.architecture,
            "data": "breasts",
            "imgsz": settings.image_size,
            "epochs": settings.epochs,
            "patience": settings.epochs,
            "batch": settings.batch_size,
            "nbs": settings.batch_size,
            "lr0": settings.learning_rate,
            "seed": seed,
            "deterministic": True,
            "device": str(device.index) if device.type == "cuda" else "cpu",
            # Each worker would draw its own augmentation, so that their number would change the
            # result. The squares are small enough to be read in this process.
            "workers": 0,
            "amp": False,
            "plots": False,
            "pretrained": False,
            "project": str(folder),
            "name": "run",
        }
        super().__init__(overrides=overrides)
        # ultralytics only warns of an operator that has no deterministic kernel.
        use_deterministic_kernels()

    def use_checkpoints(self, checkpoints: Path, name: str) -> None:
        """Write checkpoints of this name to a folder; go on from the one that it has, if any."""
        self.checkpoints = checkpoints, name
        self.found = checkpoint.load(checkpoints, name)
        if self.found is not None:
            self.rows, self.best_epoch = self.found.facts["rows"], self.found.facts["best_epoch"]
            self.best_weights = select_prefix("best", self.found.tensors)
            say(f"detector: going on after epoch {len(self.rows)}, from a checkpoint")

    def resume_training(self, ckpt: Any) -> None:
        if self.found is not None:
            restore_trainer(self, self.found)

    def get_dataset(self) -> dict[str, Any]:
        # ultralytics' own check of a data set would download a font.
        return {
            "train": str(self.folder / "train" / "images"),
            "val": str(self.folder / "val" / "images"),
            "nc": 1,
            "names": {0: "breast"},
            "channels": 3,
        }

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = False) -> Any:
        model = build_network(self.settings.architecture)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = _NORM_MOMENTUM
        if self.settings.weights != "none":
            _load_first_weights(model, Path(self.settings.weights))
        return model

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        # ultralytics' own AdamW on a CPU uses MKL's square root: see `PortableAssigner`.
        original: Any = super()  # without types
        groups = original.build_optimizer(*args, **kwargs).param_groups
        return torch.optim.AdamW([{**group, "fused": True} for group in groups], fused=True)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        # ultralytics would validate on oblong images with a grey border, unlike those that `find`
        # sees. Squares of the right size get no border.
        dataset: Any = build_yolo_dataset(
            self.args, img_path, batch or 1, self.data, mode=mode, rect=False, stride=self.stride
        )
        if mode == "train":
            dataset.transforms.insert(0, shrink)
        return dataset

    def save_model(self) -> bool:
        """Keep the averaged weights of the best epoch; ultralytics would write half precision."""
        if self.fitness == self.best_fitness:
            state = self.ema.ema.state_dict()
            self.best_weights = {name: value.cpu().clone() for name, value in state.items()}
            self.best_epoch = self.epoch + 1
        row: dict[str, float] = {"epoch": self.epoch + 1}
        figures = {**self.label_loss_items(self.tloss), **self.metrics}
        row.update({ours: float(figures[theirs]) for theirs, ours in _CURVES.items()})
        self.rows.append(row)
        losses = sum(value for name, value in row.items() if name.startswith("train_"))
        say(
            f"detector: epoch {self.epoch + 1}/{self.epochs}: loss {losses:.3f}, "
            f"mAP50 {row['map50']:.3f}, mAP50-95 {row['map50_95']:.3f}"
        )
        if self.checkpoints is not None:
            checkpoint.save(*self.checkpoints, collect_trainer_state(self))
        return False

    def final_eval(self) -> None:
        """Do nothing: the figures of the best epoch are known."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if not math.isfinite(float(self.loss.detach())):
            raise UserError(
                f"the detector's loss is no longer finite in epoch {epoch + 1}: "
                f"lower detector.learning_rate ({self.settings.learning_rate}), or check whether "
                f"detector.weights ({self.settings.weights}) holds NaN"
            )
        if self.batch_size != self.settings.batch_size:
            raise UserError(
                f"the GPU's memory does not hold a batch of {self.settings.batch_size} images of "
                f"{self.settings.image_size} pixels: lower detector.batch_size"
            )
        return False


def _name_checkpoints(
    settings: Settings, seed: int, device: torch.device, *parts: Sequence[Example]
) -> str:
    """Name the checkpoints of a training by a hash of all that decides it."""

    def contents() -> Iterator[bytes]:
        for examples in parts:
            for example in examples:
                yield example.image.read_bytes()
                yield repr(astuple(example.box)).encode()
        if settings.weights != "none":
            yield Path(settings.weights).read_bytes()

    machine = checkpoint.describe_machine(device)
    machinery = {**machine, "ultralytics": metadata.version("ultralytics-opencv-headless")}
    return checkpoint.hash_inputs(
        __name__, [settings.model_dump(mode="json"), seed, machinery], contents(), {}
    )


def shrink(labels: dict[str, Any]) -> dict[str, Any]:
    """Shrink an image at random, keep it at the left edge, shift it down at random; black around.

    An ultralytics transform: it takes and returns ultralytics' dict of an image and its boxes.
    """
    image = labels["img"]
    height, width = image.shape[:2]
    across, down = (random.uniform(_SMALLEST, 1) for _ in range(2))
    top = random.uniform(0, 1 - down) * height
    # The origin of warpAffine is the middle of the first pixel, that of boxes is its corner.
    matrix = np.array([[across, 0, (across - 1) / 2], [0, down, top + (down - 1) / 2]])
    labels["img"] = cv2.warpAffine(image, matrix, (width, height))
    instances = labels["instances"]
    instances.convert_bbox("xyxy")
    instances.denormalize(width, height)
    instances.scale(across, down)
    instances.add_padding(0, top)
    return labels


def _write_squares(parts: dict[str, Sequence[Example]], folder: Path, size: int) -> None:
    """Write images and labels in ultralytics' format: relative centre, width and height as text."""
    named = [
        (part, f"{index:07d}", example)
        for part, examples in parts.items()
        for index, example in enumerate(examples)
    ]
    for part, name, example in track(named, "detector: images", len(named)):
        square, placement = fit_in_frame(read_gray(example.image), size, size)
        box = box_in_square(example.box, placement)
        centre = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        numbers = " ".join(f"{v / size:.8f}" for v in (*centre, box.width, box.height))
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / "images" / f"{name}.png"), square)
        (folder / part / "labels" / f"{name}.txt").write_text(f"0 {numbers}\n")


def _load_first_weights(model: DetectionModel, path: Path) -> None:
    """Load weights; those of the head are left out if its shape, set by the classes, is another."""
    given, own = read_weights(path), model.state_dict()
    fitting = {name: v for name, v in given.items() if name in own and v.shape == own[name].shape}
    head = ".".join(list(own)[-1].split(".")[:2]) + "."  # the last layer, as "model.23."
    missing = [name for name in own if name not in fitting and not name.startswith(head)]
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} tensors of the detector's body, the first is "
            f"{missing[0]}: these are the weights of another architecture; change detector.weights"
        )
    model.load_state_dict(fitting, strict=False)
