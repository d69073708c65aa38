"""Train the classifier with the best settings found.

    python -m stages.train_classifier

Writes weights.safetensors and architecture.json (together a classifier), history.csv (one row an
epoch) and metrics.json. With MLFLOW_RUN_ID set, MLflow shows the curves live. If it is interrupted,
it goes on from its checkpoint the next time, to the same bytes.
"""

from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from mammo.base.atomic_files import fresh_folder, read_json, write_csv, write_json
from mammo.base.determinism import pin, stage_seed
from mammo.base.errors import UserError
from mammo.base.settings import Classifier, Params, Space, load_params
from mammo.classifier.network import check_weights, save_classifier
from mammo.classifier_training.fit import find_trainable, fit, read_examples
from stages.device import announce_device
from stages.mlflow_live import open_stage_log
from stages.runner import checkpoint_folder, run_stage

MANIFEST_FILE = Path("outputs/preprocess/manifest.csv")
SPLIT_FILE = Path("outputs/split/split.csv")
CROPS = Path("outputs/crop_rois")
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
    """
    check_weights(params.classifier)
    settings = apply_best_params(params.classifier, best_params)
    train, validation = read_examples(settings, manifest, split, crops)
    seed = stage_seed(params.seed, "train_classifier")
    result = fit(settings, train, validation, seed, open_stage_log(), checkpoints)
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
    pin(stage_seed(params.seed, "train_classifier"), params.threads)
    announce_device(OUT.name, params)
    with checkpoint_folder(OUT.name) as checkpoints, fresh_folder(OUT) as out:
        run(params, MANIFEST_FILE, SPLIT_FILE, CROPS, BEST_PARAMS, out, checkpoints)


if __name__ == "__main__":
    run_stage(main)
