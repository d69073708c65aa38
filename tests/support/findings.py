"""Findings of real files without networks: the probabilities are the test's, and so is the heat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from mammo.base.settings import Preprocess
from mammo.explanation.overlay import draw_overlay
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box
from mammo.imaging.png import encode_png
from mammo.intake.prepare import prepare
from mammo.serving.finding import (
    ExamFinding,
    ImageFinding,
    Model,
    OperatingPoint,
    Peak,
    Region,
    group_exams,
)
from mammo.serving.identity import read_identity

MODEL = Model("mammogram-classifier", 3, "5e" * 32, "c0" * 20, "ab" * 32)
POINT = OperatingPoint(0.4, 2.0)
SETTINGS = Preprocess(long_side=512, full_decode=False, max_reject_fraction=0)


def make_finding(
    files: Sequence[Path],
    probabilities: Sequence[float],
    model: Model = MODEL,
    aggregate: Literal["max", "mean"] = "max",
) -> ExamFinding:
    """The finding of one exam. The hot spot is in the middle of the breast's box."""
    images = [
        find_image(number, file, probability)
        for number, (file, probability) in enumerate(zip(files, probabilities, strict=True), 1)
    ]
    (exam,) = group_exams(images, model, POINT, aggregate)
    return exam


def sources_of(exam: ExamFinding) -> dict[int, Path | bytes]:
    """The files of an exam, by number."""
    return {image.number: Path(str(image.source)) for image in exam.images}


def find_image(
    number: int, file: Path, probability: float, lesion: Box | None = None
) -> ImageFinding:
    """The finding of one file: breast box by the mask, heat on the lesion or round the middle.

    Args:
        number: of the file, from 1.
        file: a mammogram.
        probability: what the model is to say.
        lesion: where the heat is, in pixels of the stored image.
    """
    prepared = prepare(file, SETTINGS)
    placement, about = prepared.placement, prepared.description
    found = find_breast_box(prepared.image)
    assert found is not None
    box = placement.to_stored(found)
    rows, columns = (slice(int(a), int(b)) for a, b in ((found.y1, found.y2), (found.x1, found.x2)))
    crop = prepared.image[rows, columns]
    spot = _middle(found, 0.1) if lesion is None else placement.to_image(lesion)
    hot = placement.to_stored(spot)
    corners = (hot.x1, hot.y1), (hot.x2, hot.y1), (hot.x2, hot.y2), (hot.x1, hot.y2)
    return ImageFinding(
        number=number,
        source=str(file),
        identity=read_identity(file),
        laterality=about.laterality,
        view=about.view,
        rows=placement.stored_height,
        columns=placement.stored_width,
        probability=probability,
        box=box,
        found_by="mask",
        peak=Peak((hot.x1 + hot.x2) / 2, (hot.y1 + hot.y2) / 2, 1.0),
        region=Region(0.5, corners),
        heatmap=encode_png(draw_overlay(crop, _heat(crop.shape, spot.shift(-found.x1, -found.y1)))),
    )


def cut_short(file: Path, target: Path) -> Path:
    """A copy whose pixel data end too soon, as after a transfer that broke off; its path."""
    content = file.read_bytes()
    target.write_bytes(content[: len(content) // 2])
    return target


def spoil(dataset: Dataset) -> Dataset:
    """The same object with pixel data that are well-formed and no picture."""
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    dataset.PixelData = encapsulate([b"\0" * 64]) if compressed else b"\0" * 64
    return dataset


def _middle(box: Box, share: float) -> Box:
    """A part of the box, nearer to its right side, so that left and right differ."""
    x, y = box.x1 + 0.6 * box.width, box.y1 + 0.5 * box.height
    across, down = share * box.width, share * box.height
    return Box(x - across, y - down, x + across, y + down)


def _heat(shape: tuple[int, ...], spot: Box) -> NDArray[np.float32]:
    """Highest in the middle of the spot, and half as high at its sides."""
    y, x = (np.arange(side) for side in shape)
    across = (x[None] - (spot.x1 + spot.x2) / 2) / (spot.width / 2)
    down = (y[:, None] - (spot.y1 + spot.y2) / 2) / (spot.height / 2)
    return (0.5 ** (across**2 + down**2)).astype(np.float32)
