"""Which recipe is better: the same folds by woman, paired, intervals over the women.

    python -m benchmarks.recipes KEEP --phantoms 300
    python -m benchmarks.recipes KEEP --data DIR --base recipes/mini-mias.yaml
    python -m benchmarks.recipes KEEP --crops DIR     # as `mammoflow data cbis-masses` makes it
    python -m benchmarks.recipes KEEP ... --recipe all-layers --recipe patches --patches FILE

DIR is in our layout, as `mammoflow data mini-mias` makes one. KEEP holds what was made: prepared
pictures once for each data set, and each training, under a hash of what it follows from. So a run
that was stopped goes on, also after its last epoch, and `--table` prints what is there. A training
keeps 14 MB; an hour on two cores is some 25 trainings of mini-MIAS.

No recipe is tuned first, so that all are treated alike. Each breast is scored by the network that
did not see its woman; auROC counts the pairs of breasts that the same network scored, and is
averaged over the seeds. The intervals (95 %) resample the women, with the same draw for both
recipes of a difference.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from benchmarks.own_patches import PRETRAINING, pretrain_fold
from benchmarks.studies import (
    PictureStudy,
    StudyTrial,
    find_trial,
    prepare,
    read_breasts,
    read_facts,
    read_study,
    study_crops,
    train_trial,
    within_folds,
)
from mammo.assurance.paired import find_bound, find_tail, resample_women
from mammo.base.errors import UserError
from mammo.base.settings import Classifier as Settings
from mammo.base.settings import Params, load_params
from mammo.classifier.network import check_weights
from mammo.datasets.phantom.draw import write_phantoms
from mammo.patches.settings import load_pretraining

BASELINE = "base"
GIVEN_WEIGHTS = "patches"  # first weights from the file that is given
OWN_WEIGHTS = "own-patches"  # first weights from the lesions of each fold's own train women
RESAMPLES = 2000
ERROR = 0.025  # beyond either end of an interval
MOST = 9999  # women: beyond that, no difference was found


@dataclass(frozen=True)
class Recipe:
    """What one recipe does otherwise than the settings that are the base of all.

    Attributes:
        why: what is asked, in a few words.
        classifier: settings that it replaces.
        times: settings that it multiplies; sizes become multiples of 32.
        aggregate: of the views of a breast.
        change: of `studies.CHANGES`, which is no setting.
        file: another file's classifier, at the base's resolution and target.
    """

    why: str
    classifier: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    aggregate: str = "max"
    change: str = ""
    file: str = ""


_FREE = {"trainable_layers": "all", "freeze_batch_norm": False}
RECIPES = {
    BASELINE: Recipe("the settings as they are"),
    "random": Recipe("no first weights", {"weights": "none", **_FREE}),
    GIVEN_WEIGHTS: Recipe("lesions first, whole films then", {"weights": GIVEN_WEIGHTS}),
    "patches-all": Recipe(
        "the same, and all layers learn", {"weights": GIVEN_WEIGHTS, "trainable_layers": "all"}
    ),
    "patches-head": Recipe(
        "the same, and the head alone learns", {"weights": GIVEN_WEIGHTS, "trainable_layers": 0}
    ),
    "patches-noisy-or": Recipe(
        "lesions first, and tiles then", {"weights": GIVEN_WEIGHTS}, change="tiles"
    ),
    OWN_WEIGHTS: Recipe("the lesions of its own train women first", {"weights": OWN_WEIGHTS}),
    "head": Recipe("the head alone learns", {"trainable_layers": 0}),
    "layers-30": Recipe("the last 30 layers learn", {"trainable_layers": 30}),
    "all-layers": Recipe("all layers learn", {"trainable_layers": "all"}),
    "batch-norm": Recipe("batch norm learns as well", _FREE),
    "rate-third": Recipe("a third of the learning rate", times={"learning_rate": 1 / 3}),
    "rate-triple": Recipe("three times the learning rate", times={"learning_rate": 3.0}),
    "one-rate": Recipe("the backbone at the head's rate", {"backbone_rate": 1.0}),
    "half-size": Recipe("half the resolution", times={"image_height": 0.5, "image_width": 0.5}),
    "larger": Recipe("1.5 times the resolution", times={"image_height": 1.5, "image_width": 1.5}),
    "no-average": Recipe("the last weights, no average of the steps", {"average": 0.0}),
    "average-0.98": Recipe("a longer average of the steps", {"average": 0.98}),
    "weighted": Recipe("positives weigh more, none is repeated", {"balance": "weight"}),
    "unbalanced": Recipe("positives as they come", {"balance": "none"}),
    "spread": Recipe("each batch has its share of positives", change="spread"),
    "focal": Recipe("the focal loss, gamma 2", change="focal"),
    "mean-of-views": Recipe("a breast is the mean of its views", aggregate="mean"),
    "noisy-or": Recipe("3 x 2 tiles, one of which is enough", change="tiles"),
    "lite1": Recipe("Lite1, two thirds of the epochs", {"backbone": "efficientnet_lite1"},
                    {"epochs": 0.67}),
    "lite2": Recipe("Lite2, half of the epochs", {"backbone": "efficientnet_lite2"},
                    {"epochs": 0.5}),
    "origin": Recipe("recipes/origin.yaml", file="recipes/origin.yaml"),
    "origin-lite0": Recipe(
        "the same with our backbone", {"backbone": "efficientnet_lite0"},
        file="recipes/origin.yaml",
    ),
}  # fmt: skip
"""What is compared, by name."""

NOT_OF_FILE = ("image_height", "image_width", "target", "processes")
"""What the recipe of a file takes from the base: the data's target, and what a machine can do."""


def main(
    keep: Annotated[Path, typer.Argument(help="A folder for all that is made.")],
    data: Annotated[Path | None, typer.Option(help="A data set in our layout.")] = None,
    phantoms: Annotated[int, typer.Option(help="Draw so many women instead.")] = 0,
    crops: Annotated[Path | None, typer.Option(help="Crops by class instead.")] = None,
    base: Annotated[Path, typer.Option(help="The settings that recipes change.")] = Path(
        "params.yaml"
    ),
    recipe: Annotated[list[str] | None, typer.Option(help="By name; default: all.")] = None,
    patches: Annotated[Path | None, typer.Option(help="First weights, safetensors.")] = None,
    folds: Annotated[int, typer.Option(min=3, help="Of the women.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold.")] = 3,
    table: Annotated[bool, typer.Option(help="Train nothing, print what is there.")] = False,
) -> None:
    """Train what is not there yet, and print the table."""
    try:
        params = load_params(base)
        wanted = choose_recipes(recipe, patches)
        study = open_study(params, keep, data, phantoms, crops, folds)
        found = run(study, params, wanted, patches, keep, seeds, train=not table)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    print(describe(study))
    print(compare(found, {name: RECIPES[name].why for name in wanted}))


def choose_recipes(names: Sequence[str] | None, patches: Path | None) -> list[str]:
    """The names of what is compared, the baseline first.

    Raises:
        UserError: for a name that is none, or if a recipe needs a file that was not given.
    """
    unknown = [name for name in names or () if name not in RECIPES]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no recipe; there are {', '.join(RECIPES)}")
    needing = {
        name for name, one in RECIPES.items() if one.classifier.get("weights") == GIVEN_WEIGHTS
    }
    if names and patches is None and needing & set(names):
        raise UserError(f"{min(needing & set(names))} needs --patches, a safetensors file")
    wanted = names or [name for name in RECIPES if patches is not None or name not in needing]
    return [BASELINE, *(name for name in wanted if name != BASELINE)]


def open_study(
    params: Params,
    keep: Path,
    data: Path | None,
    phantoms: int,
    crops: Path | None,
    folds: int,
) -> PictureStudy:
    """The study that the command line names.

    Raises:
        UserError: unless it names one, or as the stages that prepare it.
    """
    if sum([data is not None, phantoms > 0, crops is not None]) != 1:
        raise UserError("name one of --data, --phantoms and --crops")
    if crops is not None:
        return study_crops(crops)
    if data is None:
        data = keep / f"phantoms-{phantoms}"
        if not data.exists():
            write_phantoms(data, women=phantoms)
    study = read_study(data.name, params, prepare(params, data, keep), folds)
    return replace(study, films=data)


def build_settings(
    study: PictureStudy, params: Params, recipe: Recipe, patches: Path | None
) -> Settings:
    """The settings of a recipe.

    Raises:
        UserError: if the backbone or its first weights are missing.
    """
    own = params.classifier if study.folder is not None else load_pretraining(PRETRAINING).pretrain
    base = own.model_dump()
    if recipe.file:
        other = load_params(Path(__file__).parents[1] / recipe.file).classifier.model_dump()
        base = other | {name: base[name] for name in NOT_OF_FILE if name in base}
    base |= recipe.classifier
    for name, factor in recipe.times.items():
        value = base[name] * factor
        if name.startswith("image_"):
            value = max(32, 32 * round(value / 32))
        base[name] = max(1, round(value)) if isinstance(base[name], int) else value
    if base["weights"] == GIVEN_WEIGHTS:
        base["weights"] = str(patches)
    if base["weights"] == OWN_WEIGHTS:
        if study.films is None:
            raise UserError("there are no films with marked lesions to cut patches from")
        base["weights"] = "imagenet"  # of which the patches' network starts; then each fold's own
    settings = Settings.model_validate(base)
    check_weights(settings)
    return settings


@dataclass(frozen=True, eq=False)
class Found:
    """What a recipe's trainings found: by seed the breasts, and the seconds of a training."""

    breasts: dict[int, pd.DataFrame]
    seconds: float


def run(
    study: PictureStudy,
    params: Params,
    names: Sequence[str],
    patches: Path | None,
    keep: Path,
    seeds: int,
    train: bool = True,
) -> dict[str, Found]:
    """Train what is not kept, seed by seed, and read all of it.

    Args:
        study: on what.
        params: the settings that recipes change, and the threads.
        names: of `RECIPES`, with the baseline; one whose first weights are missing is left out.
        patches: a file of first weights, for recipes that start from it.
        keep: a folder for all that is made.
        seeds: 0, 1 and so on.
        train: False: read what is there.

    Returns:
        By recipe; a seed counts once all its folds are there.

    Raises:
        UserError: if the baseline's first weights are missing, or as `fit`.
    """
    settings = {BASELINE: build_settings(study, params, RECIPES[BASELINE], patches)}
    for name in names:
        try:
            settings[name] = build_settings(study, params, RECIPES[name], patches)
        except UserError as error:  # no weights of ResNet-50 without a network: the others go on
            print(f"{name} is left out: {error}", flush=True)
    names = list(settings)
    folds, total = range(len(study.folds)), seeds * len(names) * len(study.folds)
    number = 0
    done: dict[str, dict[int, list[Path]]] = {name: {} for name in names}
    for seed in range(seeds):
        for name in names:
            folders = []
            for fold in folds:
                number += 1
                chosen = settings[name]
                if RECIPES[name].classifier.get("weights") == OWN_WEIGHTS:
                    own = pretrain_fold(study, fold, seed, params, keep, train)
                    if own is None:
                        continue
                    chosen = chosen.model_copy(update={"weights": str(own)})
                trial = StudyTrial(chosen, seed, RECIPES[name].change)
                folder = find_trial(study, fold, trial, keep)
                if train and not (folder / "facts.json").is_file():
                    print(f"{number} of {total}: {name}, seed {seed}, fold {fold}", flush=True)
                    train_trial(study, fold, trial, params.threads, keep)
                if (folder / "facts.json").is_file():
                    folders.append(folder)
            if len(folders) == len(folds):
                done[name][seed] = folders
    found = {}
    for name, by_seed in done.items():
        breasts = {
            seed: read_breasts(folders, RECIPES[name].aggregate)
            for seed, folders in by_seed.items()
        }
        seconds = [read_facts(folder)["seconds"] for one in by_seed.values() for folder in one]
        if breasts:
            found[name] = Found(breasts, float(np.mean(seconds)))
    return found


def describe(study: PictureStudy) -> str:
    """The study in a line."""
    breasts = study.table.groupby(["patient_id", "laterality"])["target"].max()
    women = study.table["patient_id"].nunique()
    tested = sum(fold.count("test") for fold in study.folds)
    return (
        f"{study.name}: {len(study.table)} pictures of {women} women, {len(breasts)} breasts or"
        f" crops, {breasts.sum()} of them positive; {tested} pictures tested in"
        f" {len(study.folds)} folds"
    )


def compare(found: dict[str, Found], why: dict[str, str]) -> str:
    """The table: each recipe's auROC, and its difference to the baseline on the seeds of both.

    `women` is how many it would take for a difference as large as the one that was found to be
    clear of 0, if it is real.
    """
    if BASELINE not in found:
        return "nothing to compare: the baseline's folds are not all there"
    head = f"{'recipe':15}{'seeds':>6}{'auROC (95 %)':>24}{'by seed':>9}"
    head += f"{'difference (95 %)':>28}{'women':>8}{'seconds':>9}"
    lines = [head]
    base = found[BASELINE]
    women = base.breasts[min(base.breasts)]["patient_id"].nunique()
    for name, one in found.items():
        seeds = sorted(one.breasts.keys() & base.breasts.keys())
        if not seeds:
            continue
        breasts = one.breasts[seeds[0]]
        target = breasts["target"].to_numpy(np.int64)
        weights = np.concatenate(
            [np.ones((1, len(breasts))), *resample_women(breasts["patient_id"], target, RESAMPLES)]
        )
        of_one, of_base = (average_areas(which, seeds, weights) for which in (one, base))
        tail = find_tail(breasts["patient_id"], target, ERROR)
        by_seed = [average_areas(one, [seed], weights[:1])[0] for seed in seeds]
        deviation = f"{np.std(by_seed, ddof=1):.3f}" if len(seeds) > 1 else "-"
        line = f"{name:15}{len(seeds):>6}{show(of_one, tail):>24}{deviation:>9}"
        if name != BASELINE:
            difference = of_one - of_base
            line += (
                f"{show(difference, tail, sign='+'):>28}{count_women(difference, tail, women):>8}"
            )
        else:
            line += f"{'':>36}"
        lines.append(f"{line}{one.seconds:>9.0f}  {why.get(name, '')}")
    return "\n".join(lines)


def average_areas(
    found: Found, seeds: Sequence[int], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The auROC in each draw of the women, averaged over the seeds."""
    areas = []
    for seed in seeds:
        breasts = found.breasts[seed]
        target, probability, fold = (
            breasts[name].to_numpy() for name in ("target", "probability", "fold")
        )
        areas.append(within_folds(target, probability, fold, weights))
    return np.asarray(np.mean(areas, axis=0))


def bounds(values: NDArray[np.float64], tail: float) -> tuple[float, float, float]:
    """The value itself, which comes first, and its bounds by the draws after it."""
    draws = values[1:][np.isfinite(values[1:])]
    value = float(values[0])
    return value, find_bound(value, draws, tail), 0.0 - find_bound(-value, -draws, tail)


def show(values: NDArray[np.float64], tail: float, sign: str = "") -> str:
    """The value with its interval."""
    value, low, high = bounds(values, tail)
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def count_women(difference: NDArray[np.float64], tail: float, women: int) -> str:
    """How many women would show a difference so large: an interval narrows as their root."""
    value, low, high = bounds(difference, tail)
    half = (high - low) / 2
    if value == 0 or half == 0:
        return "-"
    needed = women * (half / value) ** 2
    return f"{needed:.0f}" if needed < MOST else f"> {MOST}"


if __name__ == "__main__":
    typer.run(main)
