"""How far the test scores move when nothing but the seed changes: ten trainings of the sample.

    python -m benchmarks.stability                    # the sample: about forty minutes on two cores
    python -m benchmarks.stability --seeds 2           # a quick look
    python -m benchmarks.stability --detector          # the detector and its crops anew as well
    python -m benchmarks.stability --recipe recipes/mini-mias.yaml --data DIR

In a clone of the commit checked out, each seed tunes, trains and scores the classifier anew.
Images, split, detector and crops are the same, so every model is tested on the same women. A small
test set, or a training that hangs on chance, shows as a wide spread. Exits with 1 beyond the limits
that the sample is held to (not for another recipe).
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.overhead import make_clone, run

DEVIATION, LOWEST = 0.05, 0.80  # of the test breasts' auROC: standard deviation, and each seed's
FIRST_SEED = 100  # not the sample's own


STAGES = ("tune_classifier", "train_classifier", "evaluate")
OF_DETECTOR = ("train_detector", "crop_rois")


def main(
    seeds: Annotated[int, typer.Option(min=2, help="How many.")] = 10,
    detector: Annotated[bool, typer.Option(help="Train the detector anew as well.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="Instead of params.yaml.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder to take instead of it.")] = None,
) -> None:
    """Print a table of the seeds, and whether the limits are kept."""
    found = []
    with tempfile.TemporaryDirectory(prefix="stability-") as scratch:
        clone = Path(scratch) / "clone"
        make_clone(clone, small=False, data=data)
        if recipe is not None:
            shutil.copyfile(recipe, clone / "params.yaml")
        run([sys.executable, "-m", "dvc", "repro", "--quiet", "crop_rois"], clone)
        settings = yaml.safe_load((clone / "params.yaml").read_text())
        print(f"{'seed':>6}{'auROC':>9}{'average precision':>20}{'seconds':>9}", flush=True)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            (clone / "params.yaml").write_text(yaml.safe_dump({**settings, "seed": seed}))
            start = time.perf_counter()
            for stage in (*(OF_DETECTOR if detector else ()), *STAGES):
                run([sys.executable, "-m", f"stages.{stage}"], clone)
            seconds = time.perf_counter() - start
            metrics = json.loads((clone / "outputs/evaluate/metrics.json").read_text())
            scores = metrics["test"]["breast"]
            auroc, precision = (scores[name]["value"] for name in ("auroc", "average_precision"))
            found.append(auroc)
            print(f"{seed:>6}{auroc:>9.3f}{precision:>20.3f}{seconds:>9.0f}", flush=True)
    mean, deviation, lowest = statistics.mean(found), statistics.stdev(found), min(found)
    print(f"auROC: mean {mean:.3f}, standard deviation {deviation:.3f}, lowest {lowest:.3f}")
    if recipe is None and data is None:
        print(f"limits: at most {DEVIATION}, none below {LOWEST:.2f}")
        raise typer.Exit(int(deviation > DEVIATION or lowest < LOWEST))


if __name__ == "__main__":
    typer.run(main)
