"""Does the heat lie on the lesion: the pointing game and the energy of several methods.

    python -m benchmarks.heatmaps outputs                           # the model of outputs/: minutes
    python -m benchmarks.heatmaps KEEP --phantoms 300
    python -m benchmarks.heatmaps KEEP --data DIR --base recipes/mini-mias.yaml --pictures FOLDER
    python -m benchmarks.heatmaps KEEP --data DIR ... --recipe patches --patches FILE

Without a data set, a folder of a pipeline's outputs is meant: its network and its test women. Else
KEEP and the other arguments are those of `benchmarks.recipes`, whose trainings are taken, or made.
Each cancer whose lesions lesions.csv marks is explained by a network that did not see its woman.
A lesion is the ellipse in its box: the circle that mini-MIAS gives. It is hit if the heat's peak
lies in it, or within `explain.tolerance` pixels; chance is a point drawn uniformly from the breast.
The energy is the share of all heat that lies in the lesion (Wang et al. 2020); that of a uniform
heat is the lesion's share of the breast. Intervals (95 %) resample the women. FOLDER gets a picture
of each image under each method: they show women, and belong into no repository.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAMPlusPlus
from pytorch_grad_cam.base_cam import BaseCAM

from benchmarks.recipes import BASELINE, RECIPES, choose_recipes, open_study, build_settings
from benchmarks.studies import PictureStudy, StudyTrial, read_study, train_trial
from mammo.base.atomic_files import write_bytes
from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.progress import track
from mammo.base.settings import Params, load_params
from mammo.classifier.network import load_classifier
from mammo.data.reading import read_table
from mammo.data.tables import ROIS, SPLIT
from mammo.explanation.grad_cam import METHODS, compute_heatmap
from mammo.explanation.overlay import Heat, draw_overlay, find_peak
from mammo.imaging.breast_mask import segment_breast
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import read_gray
from mammo.imaging.png import encode_png
from stages.explain import find_lesions

MEASURED: dict[str, type[BaseCAM]] = {
    **METHODS,
    "grad_cam_plusplus": GradCAMPlusPlus,
    "eigen_cam": EigenCAM,
    "eigen_grad_cam": EigenGradCAM,
}
FIRST = "grad_cam"
"""What the others are compared with."""

RESAMPLES = 2000
SIZES = ("small", "medium", "large")
HEIGHT = 480  # pixels of a picture

Mask = NDArray[np.bool_]


def main(
    keep: Annotated[Path, typer.Argument(help="Outputs, or KEEP of benchmarks.recipes.")],
    data: Annotated[Path | None, typer.Option(help="A data set in our layout.")] = None,
    phantoms: Annotated[int, typer.Option(help="Draw so many women instead.")] = 0,
    base: Annotated[Path, typer.Option(help="Its settings.")] = Path("params.yaml"),
    recipe: Annotated[str, typer.Option(help="Of benchmarks.recipes.")] = BASELINE,
    patches: Annotated[Path | None, typer.Option(help="First weights, safetensors.")] = None,
    folds: Annotated[int, typer.Option(min=3, help="Of the women.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold.")] = 1,
    pictures: Annotated[Path | None, typer.Option(help="A folder for pictures.")] = None,
) -> None:
    """Explain every marked cancer, and print the tables."""
    try:
        params = load_params(base)
        if data is None and phantoms == 0:
            title, study = str(keep), read_outputs(params, keep)
            parts = iter([(keep / "train_classifier", study.folds[0])])
        else:
            choose_recipes([recipe], patches)
            study = open_study(params, keep, data, phantoms, None, folds)
            title = f"{study.name}, recipe {recipe}, {seeds} seeds"
            parts = train_folds(study, params, recipe, patches, keep, seeds)
        games = play(study, params, parts, pictures)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    print(title)
    print(summarise(games))


def read_outputs(params: Params, outputs: Path) -> PictureStudy:
    """What a pipeline made, with its own split as the one division."""
    study = read_study(outputs.name, params, outputs, 3)
    women = read_table(outputs / "split/split.csv", SPLIT).set_index("patient_id")["split"]
    own = [str(split) for split in study.table["patient_id"].map(women)]
    return replace(study, folds=[own])


def train_folds(
    study: PictureStudy, params: Params, recipe: str, patches: Path | None, keep: Path, seeds: int
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each network's folder, and which pictures are its test.

    Raises:
        UserError: if the recipe is no setting.
    """
    if RECIPES[recipe].change:
        raise UserError(f"{recipe} is no setting, and its networks are not kept")
    settings = build_settings(study, params, RECIPES[recipe], patches)
    for seed in range(seeds):
        for fold, parts in enumerate(study.folds):
            yield train_trial(study, fold, StudyTrial(settings, seed), params.threads, keep), parts


def play(
    study: PictureStudy,
    params: Params,
    networks: Iterator[tuple[Path, list[str]]],
    pictures: Path | None = None,
) -> pd.DataFrame:
    """One row for each network, marked cancer, kind of its lesions, and method.

    Args:
        study: the pictures.
        params: kinds of lesions, tolerance and threads.
        networks: their folders, and the split of each picture.
        pictures: a folder for pictures; what is there already stays.

    Returns:
        patient_id, image_id, kind ("all": of lesions of any kind), diameter (of the largest lesion,
        pixels of the prepared image), method, hit, chance, energy, uniform.

    Raises:
        UserError: if no positive image has a marked lesion.
    """
    assert study.folder is not None
    rois = read_table(study.folder / "crop_rois/rois.csv", ROIS)
    lesions = {
        kind: find_lesions(study.folder / "preprocess", [kind], rois)
        for kind in params.explain.kinds
    }
    lesions["all"] = find_lesions(study.folder / "preprocess", params.explain.kinds, rois)
    marked = (study.table["target"] == 1) & study.table["image_id"].isin(lesions["all"].keys())
    if not marked.any():
        raise UserError(f"{study.name}: no positive image has a lesion of explain.kinds")
    rows = []
    for folder, parts in networks:
        model, settings = load_classifier(folder)
        pin(params.seed, params.threads)
        mine = study.table[marked & (np.array(parts) == "test")]
        for row in track(mine.to_dict("records"), "heatmaps", len(mine)):
            roi, image_id = read_gray(Path(row["path"])), row["image_id"]
            heats = {
                name: compute_heatmap(model, roi, settings, method)
                for name, method in MEASURED.items()
            }
            about = {name: row[name] for name in ("patient_id", "image_id")}
            for kind, boxes in lesions.items():
                if image_id in boxes:
                    found = score(roi, heats, boxes[image_id], params.explain.tolerance)
                    rows += [{**about, "kind": kind, **one} for one in found]
            if pictures is not None and not (pictures / f"{image_id}.png").exists():
                picture = draw(roi, heats, lesions["all"][image_id])
                write_bytes(pictures / f"{image_id}.png", encode_png(picture))
    return pd.DataFrame(rows)


def score(
    roi: NDArray[np.uint8], heats: dict[str, Heat], boxes: Sequence[Box], tolerance: float
) -> list[dict[str, Any]]:
    """Hit, energy and what chance would give, by method; the lesions' boxes are in the ROI."""
    mask = segment_breast(roi)
    breast = mask if mask.any() else np.ones_like(mask)
    lesion = fill_ellipses(boxes, roi.shape, 0)
    target = fill_ellipses(boxes, roi.shape, tolerance)
    rows = []
    for name, heat in heats.items():
        peak, total = find_peak(heat), float(heat.sum(dtype=np.float64))
        rows.append(
            {
                "diameter": max((np.sqrt(box.area) for box in boxes), default=0.0),
                "method": name,
                "hit": peak is not None and bool(target[int(peak[1]), int(peak[0])]),
                "chance": float((target & breast).sum() / breast.sum()),
                "energy": float(heat[lesion].sum(dtype=np.float64) / total) if total > 0 else 0.0,
                "uniform": float((lesion & breast).sum() / breast.sum()),
            }
        )
    return rows


def fill_ellipses(boxes: Sequence[Box], shape: tuple[int, ...], tolerance: float) -> Mask:
    """The pixels whose middle lies in an ellipse that touches a box's sides, grown all around."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = np.zeros(shape[:2], bool)
    for box in boxes:
        grown = box.grow(tolerance)
        x = (columns + 0.5 - (grown.x1 + grown.x2) / 2) / (grown.width / 2)
        y = (rows + 0.5 - (grown.y1 + grown.y2) / 2) / (grown.height / 2)
        inside |= x**2 + y**2 <= 1
    return inside


def draw(roi: NDArray[np.uint8], heats: dict[str, Heat], boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """The picture with its lesions, and beside it the same under each method's heat."""
    scale = HEIGHT / roi.shape[0]
    size = max(1, round(roi.shape[1] * scale)), HEIGHT
    small = np.asarray(cv2.resize(roi, size, interpolation=cv2.INTER_AREA), np.uint8)
    scaled = [Box(*(x * scale for x in (box.x1, box.y1, box.x2, box.y2))) for box in boxes]
    parts = [draw_overlay(small, np.zeros(small.shape, np.float32), scaled)]
    for heat in heats.values():
        peak = find_peak(heat)
        at = None if peak is None else (peak[0] * scale, peak[1] * scale)
        large = np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), np.float32)
        parts.append(draw_overlay(small, large, scaled, at))
    return np.asarray(np.hstack(parts), np.uint8)


def summarise(games: pd.DataFrame) -> str:
    """The tables: all, each kind of lesion, and thirds of the images by the lesion's size."""
    everything = games[games["kind"] == "all"]
    images = everything.drop_duplicates("image_id")
    cuts = np.quantile(images["diameter"], [1 / 3, 2 / 3])
    size = np.digitize(everything["diameter"], cuts)
    groups = {"all": everything}
    groups |= {str(kind): part for kind, part in games.groupby("kind") if kind != "all"}
    edges = f"cut at {cuts[0]:.0f} and {cuts[1]:.0f} pixels"
    groups |= {f"{name}, {edges}": everything[size == number] for number, name in enumerate(SIZES)}
    return "\n\n".join(summarise_group(name, part) for name, part in groups.items() if len(part))


def summarise_group(title: str, games: pd.DataFrame) -> str:
    """One table: a line for each method."""
    women, images = games["patient_id"].nunique(), games["image_id"].nunique()
    lines = [
        f"{title}: {images} images of {women} women",
        f"{'method':18}{'hit':>6}{'chance':>8}{'hit - chance':>27}{f'hit - {FIRST}':>28}"
        f"{'energy':>8}{'uniform':>9}{'energy - uniform':>27}{f'energy - {FIRST}':>28}",
    ]
    first = games[games["method"] == FIRST].reset_index(drop=True)
    for name in MEASURED:
        mine = games[games["method"] == name].reset_index(drop=True)
        assert mine["image_id"].equals(first["image_id"])
        line = f"{name:18}"
        for value, by_chance, widths in (
            ("hit", "chance", (6, 8)),
            ("energy", "uniform", (8, 9)),
        ):
            scored = mine[value].astype(float)
            line += f"{scored.mean():>{widths[0]}.2f}{mine[by_chance].mean():>{widths[1]}.3f}"
            line += f"{show(scored - mine[by_chance], mine['patient_id']):>27}"
            other = "" if name == FIRST else show(scored - first[value], mine["patient_id"])
            line += f"{other:>28}"
        lines.append(line)
    return "\n".join(lines)


def show(values: "pd.Series[float]", women: "pd.Series[str]") -> str:
    """A mean with the interval of resampled women; they are drawn alike for each column."""
    codes, names = pd.factorize(women, sort=True)
    sums = np.bincount(codes, values.to_numpy(float), minlength=len(names))
    counts = np.bincount(codes, minlength=len(names))
    drawn = np.random.default_rng(20).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    typer.run(main)
