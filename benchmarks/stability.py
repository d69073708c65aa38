"""How far the test scores move when nothing but the seed changes: the whole pipeline, ten times.

    python -m benchmarks.stability                     # the sample: three quarters of an hour
    python -m benchmarks.stability --seeds 2           # a quick look
    python -m benchmarks.stability --recipe recipes/mini-mias.yaml --data DIR

In a clone of the commit checked out, each seed trains the detector, cuts, tunes, trains and scores
anew; images and split do not depend on the seed, so every model is tested on the same women. A
small test set, or a training that hangs on chance, shows as a wide spread. Exits with 1 beyond the
limits that the sample is held to (not for another recipe).
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


def main(
    seeds: Annotated[int, typer.Option(min=2, help="How many.")] = 10,
    recipe: Annotated[Path | None, typer.Option(help="Instead of params.yaml.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="In the layout of data/: not the sample.")
    ] = None,
) -> None:
    """Print a table of the seeds, and whether the limits are kept."""
    print(f"{'seed':>6}{'auROC':>9}{'avg. precision':>16}{'detector mAP':>14}{'seconds':>9}")
    found = []
    with tempfile.TemporaryDirectory(prefix="stability-") as scratch:
        clone = Path(scratch) / "clone"
        make_clone(clone, small=False, data=data)
        if recipe is not None:
            shutil.copyfile(recipe, clone / "params.yaml")
        settings = yaml.safe_load((clone / "params.yaml").read_text())
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            (clone / "params.yaml").write_text(yaml.safe_dump({**settings, "seed": seed}))
            start = time.perf_counter()
            run([sys.executable, "-m", "dvc", "repro", "--quiet", "evaluate"], clone)
            seconds = time.perf_counter() - start
            outputs = clone / "outputs"
            scores = json.loads((outputs / "evaluate/metrics.json").read_text())["test"]["breast"]
            detector = json.loads((outputs / "train_detector/metrics.json").read_text())
            auroc, precision = (scores[name]["value"] for name in ("auroc", "average_precision"))
            found.append(auroc)
            print(
                f"{seed:>6}{auroc:>9.3f}{precision:>16.3f}{detector['map50_95']:>14.3f}"
                f"{seconds:>9.0f}",
                flush=True,
            )
    mean, deviation, lowest = statistics.mean(found), statistics.stdev(found), min(found)
    print(f"auROC: mean {mean:.3f}, standard deviation {deviation:.3f}, lowest {lowest:.3f}")
    if recipe is None and data is None:
        print(f"limits: at most {DEVIATION}, none below {LOWEST:.2f}")
        raise typer.Exit(int(deviation > DEVIATION or lowest < LOWEST))


if __name__ == "__main__":
    typer.run(main)
