"""The training stages, each run in this process on what `learnable` writes."""

from pathlib import Path

from mammo.base.determinism import pin
from mammo.base.settings import Params
from mammo.learning.parallel import WHOLE, Part
from stages import train_classifier, tune_classifier
from tests.support.contents import contents

BEST = {"head_width": 6, "dropout": 0.2, "learning_rate": 0.002, "value": 0.9}


def train(
    params: Params,
    outputs: Path,
    out: Path,
    checkpoints: Path | None = None,
    part: Part = WHOLE,
) -> dict[str, bytes]:
    """Train in a new folder; what is in it then."""
    out.mkdir()
    pin(0, params.threads)
    train_classifier.run(
        params,
        outputs / "preprocess" / "manifest.csv",
        outputs / "split" / "split.csv",
        outputs / "crop_rois",
        outputs / "best_params.json",
        out,
        checkpoints,
        part,
    )
    return contents(out)


def tune(
    params: Params, outputs: Path, out: Path, storage: str = "", checkpoints: Path | None = None
) -> dict[str, bytes]:
    """Tune in a new folder; what is in it then."""
    out.mkdir()
    pin(0, params.threads)
    tune_classifier.run(
        params,
        outputs / "preprocess" / "manifest.csv",
        outputs / "split" / "split.csv",
        outputs / "crop_rois",
        out,
        storage,
        checkpoints,
    )
    return contents(out)
