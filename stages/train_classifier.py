"""Train the classifier with the best settings found.

    python -m stages.train_classifier

Writes weights.safetensors and architecture.json (together a classifier), history.csv (one row an
epoch) and metrics.json. With MLFLOW_RUN_ID set, MLflow shows the curves live. If it is interrupted,
it goes on from its checkpoint the next time, to the same bytes.

With `classifier.processes` above 1, this process starts as many under torchrun, each with

    python -m stages.train_classifier OUT CHECKPOINTS

The first of them writes to OUT, which becomes the stage's folder when all have succeeded.
"""

import sys
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from mammo.base.atomic_files import fresh_folder, read_json, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.base.settings import Classifier, Params, Space, load_params
from mammo.classifier.network import check_weights, save_classifier
from mammo.classifier_training.examples import read_examples
from mammo.classifier_training.fit import find_trainable, fit
from mammo.learning.parallel import (
    WHOLE,
    Part,
    check_cards,
    join_others,
    run_part,
    run_together,
)
from stages.device import announce_device
from stages.mlflow_live import open_stage_log
from stages.runner import keep_checkpoint_folder, run_stage

MANIFEST_FILE = Path("outputs/preprocess/manifest.csv")
SPLIT_FILE = Path("outputs/split/split.csv")
CROPS_FOLDER = Path("outputs/crop_rois")
BEST_PARAMS = Path("outputs/tune_classifier/best_params.json")
OUT = Path("outputs/train_classifier")


def run(
    params: Params,
    manifest: Path,
    split: Path,
    crops: Path,
    best_params: Path,
    out: Path,
    checkpoints: Path | None = None,
    part: Part = WHOLE,
) -> None:
    """Train, and write the classifier, its history and its metrics to `out`.

    Args:
        params: all settings.
        manifest: table of the images.
        split: table of the women.
        crops: folder of crop_rois.
        best_params: what tune_classifier found.
        out: an existing folder.
        checkpoints: a folder to go on from, if training is interrupted.
        part: which one this is of the processes that train together; the first one alone writes.
    """
    check_weights(params.classifier)
    settings = apply_best_params(params.classifier, best_params)
    train, validation = read_examples(settings, manifest, split, crops)
    seed = derive_seed(params.seed, "train_classifier")
    log = open_stage_log() if part.is_first else None
    result = fit(settings, train, validation, seed, log, checkpoints, part)
    if not part.is_first:
        return
    save_classifier(result.model, settings, out)
    history = pd.DataFrame(result.history)
    write_csv(out / "history.csv", history)
    best = result.history[result.best_epoch - 1]
    write_json(
        out / "metrics.json",
        {
            "best_epoch": result.best_epoch,
            "epochs": len(history),
            **{name: value for name, value in best.items() if name != "epoch"},
            "train_images": len(train.targets),
            "train_positive_images": int(train.targets.sum()),
            "validation_images": len(validation.targets),
            "validation_positive_images": int(validation.targets.sum()),
            "parameters": sum(p.numel() for p in result.model.parameters()),
            "parameters_trained": sum(p.numel() for p in find_trainable(result.model)),
        },
    )


def apply_best_params(settings: Classifier, best_params: Path) -> Classifier:
    """Replace the settings that tuning chose by its choice.

    Raises:
        UserError: if the file is missing or does not hold a choice.
    """
    try:
        found = read_json(best_params)
        return Classifier.model_validate(
            settings.model_dump() | {name: found[name] for name in Space.model_fields}
        )
    except FileNotFoundError:
        raise UserError(
            f"{best_params}: there is no such file; run the stage tune_classifier first"
        ) from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"{best_params}: does not hold valid {', '.join(Space.model_fields)} ({error});"
            " run the stage tune_classifier again"
        ) from None


def main() -> None:
    """Run the stage in the current folder."""
    params = load_params()
    processes = params.classifier.processes
    if processes > 1:
        check_cards(processes)
        check_weights(params.classifier)
        say(f"{OUT.name}: {processes} processes train together")
    with keep_checkpoint_folder(OUT.name) as checkpoints, fresh_folder(OUT) as out:
        if processes > 1:
            folders = [str(out), str(checkpoints)]
            run_together(f"stages.{OUT.name}", folders, processes, params.threads)
        else:
            _run_here(params, out, checkpoints, WHOLE)


def train_part() -> None:
    """Do one process's part of the training, in the current folder."""
    out, checkpoints = map(Path, sys.argv[1:])
    params = load_params()
    with join_others() as part:
        _run_here(params, out, checkpoints, part)


def _run_here(params: Params, out: Path, checkpoints: Path, part: Part) -> None:
    """Run the stage, or one process's part of it, on the project's folders."""
    pin(derive_seed(params.seed, OUT.name), params.threads)
    announce_device(OUT.name, params)
    run(params, MANIFEST_FILE, SPLIT_FILE, CROPS_FOLDER, BEST_PARAMS, out, checkpoints, part)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_part(train_part)
    else:
        run_stage(main)
