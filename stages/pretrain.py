"""Train a backbone on patches: weights that the classifier can start from.

    python -m stages.pretrain

A stage of pretraining/dvc.yaml. Writes weights/backbone.safetensors and its card, backbone.json;
history.csv (one row an epoch) and metrics.json. If it is interrupted, it goes on from its
checkpoint the next time, to the same bytes.
"""

from pathlib import Path

import pandas as pd

from mammo.base.atomic_files import fresh_folder, write_bytes, write_csv, write_json
from mammo.base.determinism import derive_seed, pin
from mammo.base.progress import say
from mammo.base.settings import WEIGHTS
from mammo.classifier.network import check_weights
from mammo.patches.pretrain import dump_backbone, pretrain, write_card
from mammo.patches.settings import Pretraining, load_pretraining
from stages.device import announce_device
from stages.runner import keep_checkpoint_folder, run_stage

PATCHES_FOLDER = Path("outputs/patches")
OUT = Path("outputs/pretrain")


def run(
    params: Pretraining, patches: Path, out: Path, weights: Path, checkpoints: Path | None = None
) -> None:
    """Train, and write the backbone with its card to `weights`, the rest to `out`.

    Args:
        params: the settings of the pretraining.
        patches: the folder of the stage patches.
        out: an existing folder.
        weights: the folder of weights to start from; other files in it stay.
        checkpoints: a folder to go on from, if training is interrupted.

    Raises:
        UserError: as `pretrain`; or if the first weights are missing.
    """
    check_weights(params.pretrain)
    found = pretrain(params, patches, checkpoints)
    write_csv(out / "history.csv", pd.DataFrame(found.fit.history))
    write_json(out / "metrics.json", found.metrics)
    content = dump_backbone(found.fit.model)
    write_bytes(weights / "backbone.safetensors", content)
    write_json(weights / "backbone.json", write_card(params, patches, content, found.metrics))
    auroc = found.metrics["validation"]["patch"]["auroc"]
    say(
        f"pretrain: validation patches, auROC {auroc['value']:.3f}"
        f" ({auroc['low']:.3f} to {auroc['high']:.3f})"
    )


def main() -> None:
    """Run the stage in the current folder."""
    params = load_pretraining()
    pin(derive_seed(params.seed, OUT.name), params.threads)
    announce_device(OUT.name)
    with keep_checkpoint_folder(OUT.name) as checkpoints, fresh_folder(OUT) as out:
        run(params, PATCHES_FOLDER, out, Path(WEIGHTS), checkpoints)


if __name__ == "__main__":
    run_stage(main)
