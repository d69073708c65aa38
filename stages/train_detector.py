"""Train the YOLO breast detector on the training women's images, validate on the validation's.

    python -m stages.train_detector

Labels are the boxes of preprocess's breast_boxes.csv, which need not name every image. If the table
is empty, the boxes of the breast masks are the labels; metrics.json says which of the two it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.errors import UserError
from mammo.base.progress import say, track
from mammo.base.settings import Params, load_params
from mammo.data.reading import read_table
from mammo.data.tables import BREAST_BOXES, MANIFEST, SPLIT
from mammo.detector.detection import Detection
from mammo.detector.detector import save_detector
from mammo.detector_training.trainer import Example, train_detector
from mammo.imaging.breast_mask import find_breast_box
from mammo.imaging.geometry import Box, Placement
from mammo.imaging.gray_images import read_gray
from mammo.imaging.png import encode_png
from stages.device import announce_device
from stages.runner import keep_checkpoint_folder, run_stage

PREPROCESSED_FOLDER = Path("outputs/preprocess")
SPLIT_FILE = Path("outputs/split/split.csv")
OUT = Path("outputs/train_detector")

TILE, COLUMNS, TILES = 320, 4, 12  # of the preview; a tile's side in pixels
TRUE_COLOUR, FOUND_COLOUR = (80, 220, 80), (60, 150, 255)  # BGR: green, orange


def run(
    params: Params, preprocessed: Path, split: Path, out: Path, checkpoints: Path | None = None
) -> None:
    """Train, validate, write; with a folder for checkpoints, resume an interrupted training.

    Raises:
        UserError: also if there is no box to train on, or none to validate on.
    """
    data = _read_data(preprocessed, split)
    say(
        f"detector: {len(data.train)} training, {len(data.validation)} validation images, "
        f"labels: {data.labels}"
    )
    seed = derive_seed(params.seed, "train_detector")
    training = train_detector(data.train, data.validation, params.detector, seed, checkpoints)
    detector = training.detector
    found = [
        detector.find([read_gray(example.image)])[0]
        for example in track(data.validation, "detector: comparing", len(data.validation))
    ]
    overlaps = [
        detection.box.iou(example.box) if detection else 0.0
        for detection, example in zip(found, data.validation, strict=True)
    ]
    save_detector(detector, out)
    write_csv(out / "curves.csv", training.curves)
    _write_preview(out / "preview.png", data.validation, found, overlaps)
    write_json(
        out / "metrics.json",
        {
            "map50": training.map50,
            "map50_95": training.map50_95,
            "mean_iou": float(np.mean(overlaps)),  # of the best box; 0 where none was found
            "best_epoch": training.best_epoch,
            "train_images": len(data.train),
            "train_women": data.women["train"],
            "validation_images": len(data.validation),
            "validation_women": data.women["validation"],
            "labels": data.labels,
        },
    )


@dataclass(frozen=True)
class _Data:
    """The labelled images of the training and the validation women."""

    train: list[Example]
    validation: list[Example]
    women: dict[str, int]  # the number of women with a labelled image, by split
    labels: str  # where the boxes come from, in words


def _read_data(preprocessed: Path, split: Path) -> _Data:
    """Read the images' paths and their boxes.

    Raises:
        UserError: also if no training woman, or no validation woman, has an image with a box.
    """
    images = preprocessed / "images"
    manifest = read_table(preprocessed / "manifest.csv", MANIFEST)
    manifest = manifest.sort_values("image_id", kind="stable")
    women = read_table(split, SPLIT).set_index("patient_id")["split"]
    manifest["split"] = manifest["patient_id"].map(women)
    candidates = manifest[manifest["split"].isin(["train", "validation"])]
    source = preprocessed / "breast_boxes.csv"
    boxes = read_table(source, BREAST_BOXES)
    if boxes.empty:
        kind, source, labels = "breast mask", images, _find_mask_boxes(candidates, images)
    else:
        kind, labels = "breast_boxes.csv", _read_boxes(candidates, boxes, source)
    labelled = candidates[candidates["image_id"].isin(labels.keys())]
    parts = {name: labelled[labelled["split"] == name] for name in ("train", "validation")}
    for name, part in parts.items():
        if part.empty:
            raise UserError(
                f"{source}: no image of a {name} woman has a breast box; the detector needs images "
                f"with a box in both splits ({split} says which woman is in which)"
            )
    train, validation = (
        [Example(images / row["path"], labels[row["image_id"]]) for row in part.to_dict("records")]
        for part in parts.values()
    )
    counts = {name: int(part["patient_id"].nunique()) for name, part in parts.items()}
    return _Data(train, validation, counts, kind)


def _read_boxes(manifest: pd.DataFrame, boxes: pd.DataFrame, file: Path) -> dict[str, Box]:
    """Convert the boxes to image coordinates, by image id, for the images that have one."""
    boxes = boxes[list(BREAST_BOXES.columns)]
    table = manifest.merge(boxes, on="image_id", validate="one_to_one")
    labels = {}
    for row in table.to_dict("records"):
        placement = Placement(
            row["stored_width"],
            row["stored_height"],
            row["width"],
            row["height"],
            bool(row["flipped"]),
        )
        box = placement.to_image(Box(row["x1"], row["y1"], row["x2"], row["y2"]))
        labels[row["image_id"]] = box.clip(row["width"], row["height"])
        if labels[row["image_id"]].area <= 0:
            raise UserError(
                f"{file}: the box of image {row['image_id']} lies outside its "
                f"{row['stored_width']} x {row['stored_height']} pixels; boxes are x1,y1,x2,y2 in "
                "pixels of the stored image"
            )
    return labels


def _find_mask_boxes(manifest: pd.DataFrame, images: Path) -> dict[str, Box]:
    """Find the box of the breast mask of each image that has one, by image id."""
    rows = track(manifest.to_dict("records"), "detector: breast masks", len(manifest))
    found = ((row["image_id"], find_breast_box(read_gray(images / row["path"]))) for row in rows)
    return {image_id: box for image_id, box in found if box is not None}


def _write_preview(
    path: Path,
    examples: Sequence[Example],
    found: Sequence[Detection | None],
    overlaps: Sequence[float],
) -> None:
    """Write one picture with the images whose boxes overlap the least, the worst first."""
    worst = np.argsort(overlaps, kind="stable")[:TILES]
    tiles = [_draw_tile(examples[i], found[i], overlaps[i]) for i in worst]
    write_bytes(path, encode_png(_arrange_tiles(tiles)[..., ::-1]))  # BGR to RGB


def _draw_tile(example: Example, detection: Detection | None, overlap: float) -> np.ndarray:
    """Draw one validation image with both boxes and a caption, TILE pixels square, BGR."""
    image = read_gray(example.image)
    height, width = image.shape
    room = TILE - 24  # the caption's line is below
    scale = min(TILE / width, room / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[: size[1], : size[0]] = small[..., None]
    _draw_box(tile, example.box, scale, TRUE_COLOUR)
    caption = "nothing found"
    if detection is not None:
        _draw_box(tile, detection.box, scale, FOUND_COLOUR)
        caption = f"IoU {overlap:.2f}, confidence {detection.confidence:.2f}"
    return _write_text(tile, caption, TILE - 8)


def _draw_box(tile: np.ndarray, box: Box, scale: float, colour: tuple[int, int, int]) -> None:
    first = round(box.x1 * scale), round(box.y1 * scale)
    last = round(box.x2 * scale) - 1, round(box.y2 * scale) - 1
    cv2.rectangle(tile, first, last, colour, thickness=2)


def _write_text(
    image: np.ndarray, text: str, y: int, colour: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    """Write a line of text on an image, with its baseline at `y`."""
    return cv2.putText(image, text, (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def _arrange_tiles(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Arrange tiles in rows below a legend."""
    columns = min(COLUMNS, len(tiles))
    blank = [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    padded = [*tiles, *blank]
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    legend = np.zeros((64, rows[0].shape[1], 3), np.uint8)
    _write_text(legend, "Validation, the worst first", 18)
    _write_text(legend, "green: labelled box", 38, TRUE_COLOUR)
    _write_text(legend, "orange: found by the detector", 58, FOUND_COLOUR)
    return np.vstack([legend, *rows])


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    pin(derive_seed(params.seed, "train_detector"), params.threads)
    announce_device(OUT.name, params)
    with keep_checkpoint_folder(OUT.name) as checkpoints, fresh_folder(OUT) as out:
        run(params, PREPROCESSED_FOLDER, SPLIT_FILE, out, checkpoints)


if __name__ == "__main__":
    run_stage(main)
