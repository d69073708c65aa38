"""Show which parts of the test women's images raised the classifier's probability.

    python -m stages.explain

Draws the heat (Grad-CAM, or what `explain.method` names) over the true and false positives with the
highest probability, and over the missed cancers with the lowest (gallery.csv, overlays/). On every
test image of a cancer whose lesions lesions.csv marks, it plays the pointing game: does the heat's
peak lie in a lesion, and how often would a guess?
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.atomic_files import fresh_folder, read_json, write_bytes, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.progress import track
from mammo.base.settings import Params, load_params
from mammo.classifier.network import load_classifier
from mammo.data.reading import read_table
from mammo.data.tables import BREASTS, LESIONS, MANIFEST, PREDICTIONS, ROIS
from mammo.explanation.grad_cam import (
    METHODS,
    compute_chance,
    compute_heatmap,
    hits_lesion,
)
from mammo.explanation.overlay import draw_overlay, find_peak
from mammo.imaging.breast_mask import segment_breast
from mammo.imaging.geometry import Box, Placement
from mammo.imaging.gray_images import read_gray
from mammo.imaging.png import encode_png
from stages.device import announce_device
from stages.runner import run_stage

PREPROCESSED_FOLDER = Path("outputs/preprocess")
CROPS_FOLDER = Path("outputs/crop_rois")
EVALUATION_FOLDER = Path("outputs/evaluate")
CLASSIFIER_FOLDER = Path("outputs/train_classifier")
OUT = Path("outputs/explain")

PICTURE_HEIGHT = 640  # pixels of every picture of the gallery
KINDS = ("true_positive", "false_positive", "missed_cancer")
GALLERY_COLUMNS = ["kind", "image", "plain", "patient_id", "image_id", "laterality", "view"]
GALLERY_COLUMNS += ["target", "probability", "hit"]


def run(
    params: Params, preprocessed: Path, crops: Path, evaluation: Path, classifier: Path, out: Path
) -> None:
    """Explain the images of the gallery and of the pointing game, and write what was found."""
    images = read_table(evaluation / "predictions.csv", PREDICTIONS)
    images = images[images["split"] == "test"]
    breasts = read_table(evaluation / "breasts.csv", BREASTS)
    thresholds = read_json(evaluation / "metrics.json")["threshold"]
    rois = read_table(crops / "rois.csv", ROIS)
    lesions = find_lesions(preprocessed, params.explain.kinds, rois)
    gallery = choose_gallery(images, breasts, thresholds["breast"], params.explain.images)
    gallery = gallery.set_index("image_id", drop=False)
    paths = rois.set_index("image_id")["path"]
    model, settings = load_classifier(classifier)
    method = METHODS[params.explain.method]

    # A game needs a cancer: a lesion marked in an image without one is no target.
    in_game = (images["target"] == 1) & images["image_id"].isin(lesions.keys())
    games = []
    wanted = images[in_game | images["image_id"].isin(gallery.index)]
    for row in track(wanted.to_dict("records"), "explain", len(wanted)):
        image_id = row["image_id"]
        roi = read_gray(crops / "images" / paths[image_id])
        heat = compute_heatmap(model, roi, settings, method)
        marked = lesions.get(image_id) if row["target"] == 1 else None
        if marked is not None:
            called = row["probability"] >= thresholds["image"]
            game = _play(roi, heat, marked, params.explain.tolerance)
            games.append({"image_id": image_id, "called": called, **game})
        if image_id in gallery.index:
            if marked is not None:
                gallery.loc[image_id, "hit"] = int(games[-1]["hit"])
            plain, shown = _draw_pictures(roi, heat, marked or [])
            write_bytes(out / str(gallery.loc[image_id, "plain"]), encode_png(plain))
            write_bytes(out / str(gallery.loc[image_id, "image"]), encode_png(shown))
    (out / "overlays").mkdir(exist_ok=True)
    write_csv(out / "gallery.csv", gallery)
    write_json(out / "metrics.json", _summarise(gallery, games))


def _play(
    roi: NDArray[np.uint8], heat: NDArray[np.float32], lesions: Sequence[Box], tolerance: float
) -> dict[str, float]:
    """One pointing game: whether the heat's peak hits a lesion, and how often a guess would."""
    mask = segment_breast(roi)
    breast = mask if mask.any() else np.ones_like(mask)
    return {
        "hit": hits_lesion(find_peak(heat), lesions, tolerance),
        "chance": compute_chance(breast, lesions, tolerance),
    }


def _summarise(gallery: pd.DataFrame, games: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json."""
    table = pd.DataFrame(games, columns=["image_id", "called", "hit", "chance"])
    return {
        "pictures": {kind: int((gallery["kind"] == kind).sum()) for kind in KINDS},
        "pointing_game": {
            "all": _score(table),
            "called_positive": _score(table[table["called"].astype(bool)]),
        },
    }


def find_lesions(
    preprocessed: Path, kinds: Sequence[str], rois: pd.DataFrame
) -> dict[str, list[Box]]:
    """Find the lesions of these kinds, by image, in pixels of its ROI; only images with lesions.

    A lesion outside the ROI has no box. An image whose lesions all lie outside has an empty list:
    its game cannot be won, but it counts.
    """
    table = read_table(preprocessed / "lesions.csv", LESIONS)
    table = table[table["kind"].isin(list(kinds))]
    images = read_table(preprocessed / "manifest.csv", MANIFEST).set_index("image_id")
    cuts = rois.set_index("image_id")
    found: dict[str, list[Box]] = {}
    for row in table.to_dict("records"):
        image_id = row["image_id"]
        if image_id not in images.index or image_id not in cuts.index:
            continue  # rejected by preprocess: rejects.csv says so
        image, cut = images.loc[image_id], cuts.loc[image_id]
        placement = Placement(
            int(image["stored_width"]),
            int(image["stored_height"]),
            int(image["width"]),
            int(image["height"]),
            bool(image["flipped"]),
        )
        box = placement.to_image(Box(row["x1"], row["y1"], row["x2"], row["y2"]))
        box = box.shift(-cut["x1"], -cut["y1"])
        box = box.clip(cut["x2"] - cut["x1"], cut["y2"] - cut["y1"])
        of_image = found.setdefault(image_id, [])
        if box.area > 0:
            of_image.append(box)
    return found


def choose_gallery(
    images: pd.DataFrame, breasts: pd.DataFrame, threshold: float, count: int
) -> pd.DataFrame:
    """Choose the gallery's images: `count` breasts of each kind, the most extreme scores first.

    A breast is shown by its view with the highest probability, so that no breast is shown twice,
    and no cancer counts as missed that was found in another view.

    Args:
        images: the test images, columns of `tables.PREDICTIONS`.
        breasts: columns of `tables.BREASTS`.
        threshold: of the breasts.
        count: at most so many of each kind.

    Returns:
        GALLERY_COLUMNS; `image` and `plain` name files that are not written yet, `hit` is empty.
    """
    breasts = breasts[breasts["split"] == "test"]
    called, cancer = breasts["probability"] >= threshold, breasts["target"] == 1
    picked = []
    for kind, chosen, ascending in (
        ("true_positive", called & cancer, False),
        ("false_positive", called & ~cancer, False),
        ("missed_cancer", ~called & cancer, True),
    ):
        order = breasts[chosen].sort_values("probability", ascending=ascending, kind="stable")
        for rank, breast in enumerate(order.head(count).to_dict("records"), start=1):
            views = images[
                (images["patient_id"] == breast["patient_id"])
                & (images["laterality"] == breast["laterality"])
                & (images["target"] == breast["target"])
            ]
            best = views.sort_values(["probability", "image_id"], ascending=[False, True]).iloc[0]
            picked.append(
                {
                    **best.to_dict(),
                    "kind": kind,
                    "image": f"overlays/{kind}_{rank:02d}.png",
                    "plain": f"overlays/{kind}_{rank:02d}_plain.png",
                }
            )
    gallery = pd.DataFrame(picked, columns=GALLERY_COLUMNS)
    return gallery.astype({"hit": "Int64"})


def _score(games: pd.DataFrame) -> dict[str, float]:
    """Counts and rates; no rates without games."""
    counts: dict[str, float] = {"images": len(games), "hits": int(games["hit"].sum())}
    if games.empty:
        return counts
    rates = {"hit_rate": games["hit"].mean(), "chance_rate": games["chance"].mean()}
    return {**counts, **{name: float(rate) for name, rate in rates.items()}}


def _draw_pictures(
    roi: NDArray[np.uint8], heat: NDArray[np.float32], lesions: Sequence[Box]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the ROI alone, and with heat, lesions and peak: both PICTURE_HEIGHT pixels high."""
    scale = PICTURE_HEIGHT / roi.shape[0]
    size = max(1, round(roi.shape[1] * scale)), PICTURE_HEIGHT
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    plain = cv2.resize(roi, size, interpolation=method).astype(np.uint8)
    large = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    scaled = [Box(b.x1 * scale, b.y1 * scale, b.x2 * scale, b.y2 * scale) for b in lesions]
    hottest = find_peak(heat)
    if hottest is not None:
        hottest = hottest[0] * scale, hottest[1] * scale
    return plain, draw_overlay(plain, large, scaled, hottest)


def main() -> None:
    """Run the stage on the project's folders."""
    params = load_params()
    pin(derive_seed(params.seed, "explain"), params.threads)
    announce_device(OUT.name, params)
    with fresh_folder(OUT) as out:
        run(params, PREPROCESSED_FOLDER, CROPS_FOLDER, EVALUATION_FOLDER, CLASSIFIER_FOLDER, out)


if __name__ == "__main__":
    run_stage(main)
