"""Patches of a collection: crops that somebody else has cut, or our own around each lesion.

Where we cut, each lesion's square comes with one of healthy tissue, of equal size, from a film of
the same woman. A film is searched for healthy tissue only if it is known where all lies
that was found in it. Everything random is drawn from (seed, woman), so it does not matter who else
is in the collection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.determinism import derive_seed
from mammo.base.errors import UserError
from mammo.base.progress import say, track
from mammo.base.settings import Preprocess, Split
from mammo.data.reading import read_table
from mammo.data.splits import split_of
from mammo.data.tables import LESIONS, TRAIN, image_file
from mammo.dicom.errors import UnreadableDicom
from mammo.imaging.breast_mask import segment_breast
from mammo.imaging.fitting import fit_in_frame
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import read_gray
from mammo.intake.prepare import prepare
from mammo.patches.settings import Patches
from mammo.patches.tables import CROPS, HEALTHY, crop_file, read_crops

SMALLEST_SIDE = 16  # pixels of the film: of what is smaller, nothing can be seen
_IN_BREAST = 0.9  # share of a healthy patch, at least
_TRIES = 100  # squares that are tried for a healthy patch
_DIFFICULT = ["cancer", "difficult_negative_case"]  # something was found in the film


@dataclass(frozen=True)
class Patch:
    """A patch of a woman: (size, size) uint8 if it was cut, else as the crop was."""

    patient_id: str
    image_id: str  # of the patch
    cancer: int
    split: str
    kind: str  # of the lesion; "healthy"; or "crop", of which the kind is not known
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class _PreparedFilm:
    """A prepared film and its lesions, in its own pixels."""

    row: dict[str, Any]
    image: NDArray[np.uint8]
    lesions: list[tuple[str, Box]]  # kind, square
    all_known: bool  # the position of everything that was found in it


def gather_patches(source: Path, settings: Patches, served: Split, seed: int) -> Iterator[Patch]:
    """The patches of a folder, woman by woman, sorted by their ids.

    With `settings.same_women`, there is none of a woman whom `served` puts into validation or test.
    A split is a hash of the id, so that holds for women, too, who come to data/ later.

    Args:
        source: with crops.csv, or with train.csv, lesions.csv and the films.
        settings: what to cut.
        served: how the collection that the backbone will serve is divided.
        seed: of the positions of healthy patches.

    Raises:
        UserError: if the folder is neither, a table or a crop cannot be read, or crops.csv has a
            woman in two splits.
    """
    if (source / str(CROPS.name)).is_file():
        yield from _take_crops(source, settings, served)
    elif (source / str(LESIONS.name)).is_file():
        yield from _cut_films(source, settings, served, seed)
    else:
        raise UserError(
            f"{source}: has neither {CROPS.name} (`mammoflow data cbis-masses` writes it) nor"
            f" {TRAIN.name} with {LESIONS.name}: there is nothing to take patches from"
        )


def _may_be_learnt_from(woman: str, settings: Patches, served: Split) -> bool:
    return not settings.same_women or split_of(woman, served) == "train"


def _take_crops(source: Path, settings: Patches, served: Split) -> Iterator[Patch]:
    for row in read_crops(source).to_dict("records"):
        if not _may_be_learnt_from(row["patient_id"], settings, served):
            continue
        picture = source / crop_file(row["patient_id"], row["image_id"])
        if not picture.is_file():
            raise UserError(f"{picture}: is missing, but {source / str(CROPS.name)} names it")
        yield Patch(
            patient_id=row["patient_id"],
            image_id=row["image_id"],
            cancer=int(row["cancer"]),
            split=row["split"],
            kind="crop",
            pixels=read_gray(picture),
        )


def _cut_films(source: Path, settings: Patches, served: Split, seed: int) -> Iterator[Patch]:
    rows = read_table(source / str(TRAIN.name), TRAIN)
    lesions = read_table(source / str(LESIONS.name), LESIONS)
    unknown = set(lesions["image_id"]) - set(rows["image_id"])
    if unknown:
        raise UserError(f"{source / str(LESIONS.name)}: {min(unknown)} is no image of {TRAIN.name}")
    with_lesions = rows.loc[rows["image_id"].isin(lesions["image_id"]), "patient_id"].unique()
    women = [w for w in sorted(with_lesions) if _may_be_learnt_from(w, settings, served)]
    boxes: dict[Any, pd.DataFrame] = dict(list(lesions.groupby("image_id")))
    for woman in track(women, "patches", len(women)):
        hers = rows[rows["patient_id"] == woman].sort_values("image_id").to_dict("records")
        films = [_read_film(source, row, boxes.get(row["image_id"]), settings) for row in hers]
        yield from _cut_woman(
            woman,
            [film for film in films if film is not None],
            settings,
            derive_seed(seed, woman),
        )


def _read_film(
    source: Path, row: dict[Any, Any], boxes: pd.DataFrame | None, settings: Patches
) -> _PreparedFilm | None:
    """A film with the squares around its lesions; None, with a message, if it cannot be read."""
    path = source / image_file(row["patient_id"], row["image_id"])
    reading = Preprocess(long_side=settings.long_side, full_decode=False, max_reject_fraction=0)
    try:
        film = prepare(path, reading)
    except UnreadableDicom as error:
        say(f"left out: {error}")
        return None
    lesions = []
    for found in [] if boxes is None else boxes.to_dict("records"):
        box = Box(found["x1"], found["y1"], found["x2"], found["y2"])
        square = _square_around(film.placement.to_image(box), settings.context)
        lesions.append((str(found["kind"]), square))
    known = bool(lesions) or not any(row[name] for name in _DIFFICULT)
    return _PreparedFilm(row, film.image, lesions, known)


def _square_around(box: Box, context: float) -> Box:
    half = max(box.width, box.height, SMALLEST_SIDE) * context / 2
    x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    return Box(x - half, y - half, x + half, y + half)


def _cut_woman(
    woman: str, films: list[_PreparedFilm], settings: Patches, seed: int
) -> Iterator[Patch]:
    """The patches of one woman: each lesion's, and a healthy one of its size if there is room."""
    rng = np.random.default_rng(seed)
    split = split_of(woman, settings.split)
    number = 0
    for film in films:
        for kind, square in film.lesions:
            number += 1
            name = f"{film.row['image_id']}-{number}"
            cancer = int(kind in settings.kinds)
            pixels = cut(film.image, square, settings.size)
            yield Patch(woman, name, cancer, split, kind, pixels)
            healthy = _find_healthy(films, square.width, rng)
            if healthy is not None:
                pixels = cut(*healthy, settings.size)
                yield Patch(woman, f"{name}-{HEALTHY}", 0, split, HEALTHY, pixels)


def _find_healthy(
    films: list[_PreparedFilm], side: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Box] | None:
    """A film and a square in it that has nothing but breast, and no lesion; None without one."""
    films = [film for film in films if film.all_known]
    masks: dict[int, NDArray[np.bool_]] = {}
    for _ in range(_TRIES if films else 0):
        number = int(rng.integers(len(films)))
        x, y = rng.random(2)
        film = films[number]
        height, width = film.image.shape
        if side >= min(height, width):
            continue
        left, top = x * (width - side), y * (height - side)
        square = Box(left, top, left + side, top + side)
        if number not in masks:
            masks[number] = segment_breast(film.image)
        inside = masks[number][int(top) : int(top + side), int(left) : int(left + side)]
        if inside.mean() >= _IN_BREAST and not any(square.iou(one) for _, one in film.lesions):
            return film.image, square
    return None


def cut(image: NDArray[np.uint8], square: Box, size: int) -> NDArray[np.uint8]:
    """The part of an image in a square, (size, size); what lies outside of the image is black."""
    x, y = round(square.x1), round(square.y1)
    side = max(1, round(square.width))
    height, width = image.shape
    picture = np.zeros((side, side), np.uint8)
    top, left = max(0, -y), max(0, -x)
    part = image[max(0, y) : min(height, y + side), max(0, x) : min(width, x + side)]
    picture[top : top + part.shape[0], left : left + part.shape[1]] = part
    return fit_in_frame(picture, size, size)[0]
