"""Search for the classifier's head width, dropout and learning rate on the validation women.

    python -m stages.tune_classifier

Writes best_params.json, which train_classifier takes, and trials.csv. With MLFLOW_RUN_ID set, each
trial is a nested run there with live curves.
"""

from pathlib import Path

from mammo.classifier import check_weights
from mammo.files import fresh_folder, write_csv, write_json
from mammo.params import Params, load_params
from mammo.reproducibility import pin, stage_seed
from mammo.training import read_examples
from mammo.tuning import best_params, trials_table, tune
from stages.live import trial_runs
from stages.runner import run_stage

MANIFEST = Path("outputs/preprocess/manifest.csv")
SPLIT = Path("outputs/split/split.csv")
CROPS = Path("outputs/crop_rois")
OUT = Path("outputs/tune_classifier")


def run(params: Params, manifest: Path, split: Path, crops: Path, out: Path) -> None:
    """Search, and write best_params.json and trials.csv to `out`.

    Args:
        params: all settings.
        manifest: table of the images.
        split: table of the women.
        crops: folder of crop_rois.
        out: an existing folder.
    """
    settings = params.classifier
    check_weights(settings)
    train, validation = read_examples(settings, manifest, split, crops)
    seed = stage_seed(params.seed, "tune_classifier")
    with trial_runs() as watch:
        study = tune(settings, params.tune, train, validation, seed, watch)
    write_csv(out / "trials.csv", trials_table(study))
    write_json(out / "best_params.json", best_params(study))


def main() -> None:
    """Run the stage in the current folder."""
    params = load_params()
    pin(stage_seed(params.seed, "tune_classifier"), params.threads)
    with fresh_folder(OUT) as out:
        run(params, MANIFEST, SPLIT, CROPS, out)


if __name__ == "__main__":
    run_stage(main)
