"""A picture of a data set in `data/` layout: a few women, their four views side by side.

python -m mammo.datasets.contact_sheet data docs/phantoms.png   # as docs/first-run.md shows it
"""

import argparse
import io
import sys
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mammo.base.atomic_files import write_bytes
from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import LESIONS, TRAIN, image_file
from mammo.dicom.reader import read_mammogram
from mammo.imaging.geometry import Box

T = TypeVar("T")

VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
"""From left to right, as on a light box."""

MARK = (255, 150, 0)


def draw_contact_sheet(
    data_dir: Path,
    png_path: Path,
    women: int = 4,
    height: int = 330,
    kinds: tuple[str, ...] = ("mass", "calcifications"),
) -> None:
    """Draw a sheet of women, one a row: with cancer in the upper half if there are as many.

    Args:
        data_dir: a data set; only women with all four standard views are shown.
        png_path: the picture to write.
        women: rows of the sheet, at most.
        height: pixels of each picture.
        kinds: of `lesions.csv`, if it is there, to be framed.

    Raises:
        UserError: if a table is missing or faulty, or no woman has all four views.
        UnreadableDicom: if an image cannot be read.
    """
    train = read_table(data_dir / "train.csv", TRAIN)
    lesions = pd.DataFrame(columns=list(LESIONS.columns))
    if (data_dir / "lesions.csv").exists():
        lesions = read_table(data_dir / "lesions.csv", LESIONS)
    lesions = lesions[lesions["kind"].isin(kinds)]
    rows = [
        np.hstack([_panel(data_dir, images[view], lesions, height) for view in VIEWS])
        for images in _choose(train, women)
    ]
    if not rows:
        raise UserError(f"{data_dir}: no woman has a CC and an MLO view of both breasts")
    widest = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0))) for row in rows]
    stream = io.BytesIO()
    Image.fromarray(np.vstack(padded)).save(stream, "PNG", optimize=True)
    write_bytes(png_path, stream.getvalue())


def _choose(train: pd.DataFrame, women: int) -> list[dict[tuple[str, str], str]]:
    """The images of a few women, by side and view: women with cancer, then women without.

    An image is given as its path in the data's folder.
    """
    groups: dict[int, list[dict[tuple[str, str], str]]] = {0: [], 1: []}
    for _, images in train.groupby("patient_id", sort=False):
        by_view = {
            (str(row.laterality), str(row.view)): image_file(str(row.patient_id), str(row.image_id))
            for row in images.itertuples()
        }
        if set(VIEWS) <= set(by_view):
            groups[int(images["cancer"].max())].append(by_view)
    half = max(women // 2, women - len(groups[0]))
    with_cancer = _spread(groups[1], half)
    return with_cancer + _spread(groups[0], women - len(with_cancer))


def _spread(items: list[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spaced."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _panel(data_dir: Path, image: str, lesions: pd.DataFrame, height: int) -> NDArray[np.uint8]:
    """One view, framed lesions and all, as (height, width, 3) bytes."""
    path = data_dir / image
    mammogram = read_mammogram(path, 2 * height)
    shown = Image.fromarray(mammogram.pixels).convert("RGB")
    shown = shown.resize((round(shown.width * height / shown.height), height), Image.Resampling.BOX)
    scale = height / mammogram.stored_height
    draw = ImageDraw.Draw(shown)
    mine = lesions[lesions["image_id"] == path.stem]
    for corners in mine[["x1", "y1", "x2", "y2"]].to_numpy(float) * scale:
        box = Box(*corners).grow(3)
        draw.rectangle((box.x1, box.y1, box.x2, box.y2), outline=MARK)
    return np.asarray(shown)


def main() -> None:
    """Draw the sheet of a data set; a fault is one sentence."""
    parser = argparse.ArgumentParser(description="A few women of a data set, one a row.")
    parser.add_argument("data", type=Path, help="a folder in the layout of data/")
    parser.add_argument("png", type=Path, help="the picture to write")
    given = parser.parse_args()
    try:
        draw_contact_sheet(given.data, given.png)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
