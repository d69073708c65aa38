"""Search for the classifier's head width, dropout and learning rate on the validation women.

    python -m stages.tune_classifier

Writes best_params.json, which train_classifier takes, and trials.csv. With MLFLOW_RUN_ID set, each
trial is a nested run there with live curves.

With OPTUNA_STORAGE set to a database, such as postgresql://mammo@server/optuna, every process that
runs this on the same inputs does a share of one search, and all write the same. best_params.json
then says that the search was shared: a search of one process can be repeated, a shared one cannot.

If another search is interrupted, it goes on after its last complete round of trials, to the same
bytes. A round, of `tune.at_once` trials, is spread over the GPUs of the machine, which changes no
byte.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mammo.base.atomic_files import fresh_folder, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.settings import Params, load_params
from mammo.classifier.network import check_weights
from mammo.classifier_training.examples import read_examples
from mammo.learning.device import list_cards
from mammo.tuning.search import Tuning, find_best_params, tabulate_trials, tune
from mammo.tuning.shared import tune_shared
from stages.device import announce_device
from stages.mlflow_live import open_trial_runs
from stages.runner import keep_checkpoint_folder, run_stage

MANIFEST_FILE = Path("outputs/preprocess/manifest.csv")
SPLIT_FILE = Path("outputs/split/split.csv")
CROPS_FOLDER = Path("outputs/crop_rois")
OUT = Path("outputs/tune_classifier")


def run(
    params: Params,
    manifest: Path,
    split: Path,
    crops: Path,
    out: Path,
    storage: str = "",
    checkpoints: Path | None = None,
    cards: Sequence[str] = (),
) -> None:
    """Search, and write best_params.json and trials.csv to `out`.

    Args:
        params: all settings.
        manifest: table of the images.
        split: table of the women.
        crops: folder of crop_rois.
        out: an existing folder.
        storage: address of the database of a shared search; see `mammo.tuning.shared.tune_shared`.
        checkpoints: a folder to go on from, if a search that is not shared is interrupted.
        cards: GPUs to spread trials over; see `mammo.tuning.search.tune`.
    """
    settings = params.classifier
    check_weights(settings)
    read = partial(read_examples, settings, manifest, split, crops)
    train, validation = read()
    seed = derive_seed(params.seed, "tune_classifier")
    with open_trial_runs(1 if storage else params.tune.at_once) as watch:
        tuning = Tuning(settings, params.tune, train, validation, seed)
        if storage:
            study = tune_shared(tuning, watch, storage)
        else:
            study = tune(tuning, watch, checkpoints, cards, read)
    write_csv(out / "trials.csv", tabulate_trials(study))
    how = {"search": "shared by several workers"} if storage else {}
    write_json(out / "best_params.json", find_best_params(study) | how)


def main() -> None:
    """Run the stage in the current folder."""
    storage = os.environ.get("OPTUNA_STORAGE", "")
    params = load_params()
    pin(derive_seed(params.seed, "tune_classifier"), params.threads)
    announce_device(OUT.name, params)
    with keep_checkpoint_folder(OUT.name) as checkpoints, fresh_folder(OUT) as out:
        run(
            params, MANIFEST_FILE, SPLIT_FILE, CROPS_FOLDER, out, storage, checkpoints, list_cards()
        )


if __name__ == "__main__":
    run_stage(main)
