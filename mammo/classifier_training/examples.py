"""What the classifier learns from, and what it is compared on: pictures with labels.

They are read once, and kept at hand for many epochs, in memory or in a file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import Pictures, label_rois
from mammo.classifier_training.picture_file import map_pictures
from mammo.data.reading import read_table
from mammo.data.splits import BREAST
from mammo.data.tables import MANIFEST, ROIS, SPLIT


@dataclass(frozen=True)
class Examples:
    """Images with labels: N pictures, (N,) targets of 0 or 1, (N,) numbers of their breasts."""

    pictures: Pictures
    targets: NDArray[np.int64]
    breasts: NDArray[np.int64]


def gather(table: pd.DataFrame, split: str, folder: Path, settings: Settings) -> Examples:
    """The examples of one split.

    Args:
        table: as `inputs.label_rois` returns it.
        split: train, validation or test.
        folder: the one that the table's paths start from.
        settings: of the classifier.

    Raises:
        UserError: if they are all of one class, or an image cannot be read.
    """
    part = table[table["split"] == split]
    if part["target"].nunique() < 2:
        raise UserError(
            f"the {split} split needs images with and without {' or '.join(settings.target)} to"
            f" train a classifier, but of its {len(part)} images {part['target'].sum()} have it"
        )
    return Examples(
        pictures=keep_pictures([folder / path for path in part["path"]], settings),
        targets=np.array(part["target"], np.int64),
        breasts=np.array(part.groupby(BREAST).ngroup(), np.int64),
    )


def keep_pictures(rois: Sequence[Path], settings: Settings) -> Pictures:
    """The pictures of image files, kept at hand for many epochs: in memory, or else in a file.

    Raises:
        UserError: if an image cannot be read, or as `map_pictures`.
    """
    pictures = Pictures(rois, settings)
    mapped = map_pictures(rois, *pictures.size) if pictures.cache is None else None
    if mapped is not None:
        pictures.use_file(*mapped)
    return pictures


def read_examples(
    settings: Settings, manifest: Path, split: Path, crops: Path
) -> tuple[Examples, Examples]:
    """Read the examples of the training split and those of the validation split.

    Args:
        settings: of the classifier.
        manifest: table of the images.
        split: table of the women.
        crops: folder of crop_rois.

    Raises:
        UserError: if a table cannot be read or does not fit the others, or as `gather`.
    """
    table = label_rois(
        read_table(manifest, MANIFEST),
        read_table(split, SPLIT),
        read_table(crops / "rois.csv", ROIS),
        settings,
    )
    images = crops / "images"
    return gather(table, "train", images, settings), gather(table, "validation", images, settings)


def dump_examples(*sets: Examples) -> Iterator[bytes]:
    """Yield all that the examples consist of, as bytes."""
    for part in sets:
        pictures = part.pictures
        if pictures.key is not None:  # it is a hash of them
            yield pictures.key.encode()
        held = pictures.rois if pictures.cache is None else pictures.cache
        for picture in held if pictures.key is None else ():
            yield picture.read_bytes() if isinstance(picture, Path) else picture.tobytes()
        yield part.targets.tobytes()
        yield part.breasts.tobytes()
