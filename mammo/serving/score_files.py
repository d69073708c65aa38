"""Score DICOM files with a predictor: probabilities only, many files, in a process of its own.

    python -m mammo.serving.score_files PREDICTOR FILES.csv SCORES.csv

PREDICTOR is a folder that `predictor.load_predictor` reads. A registered model contains this
module: run from the model's own code/, an old model is scored by the code that it was made with,
whatever has changed in the working tree since.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.atomic_files import write_csv
from mammo.base.determinism import derive_seed, pin
from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.base.progress import track
from mammo.base.settings import Preprocess
from mammo.classifier.predict import predict
from mammo.cropping.find_breast import cut_breast
from mammo.dicom.reader import UnreadableDicom
from mammo.intake.prepare import prepare
from mammo.serving.predictor import Predictor, load_predictor

Image = NDArray[np.uint8]  # (height, width)

_BATCH = 64  # images


def score_files(predictor: Predictor, files: Sequence[Path]) -> Iterator[float | None]:
    """Probability of the target for each file, in [0, 1]; None where it cannot be read.

    The same numbers as `Predictor.predict` gives, without heatmaps.
    """
    for images in _prepare_batches(files, predictor.params.preprocess):
        breasts = [
            cut_breast(predictor.detector, image, predictor.params.crop)[1]
            for image in images
            if image is not None
        ]
        found = iter(predict(predictor.classifier, breasts, predictor.classifier_settings))
        yield from (None if image is None else float(next(found)) for image in images)


def _prepare_batches(files: Sequence[Path], settings: Preprocess) -> Iterator[list[Image | None]]:
    """The image of each file, batch by batch in order; None where it cannot be read."""
    work = partial(_prepare, settings=settings)
    batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
    cores = count_cores()
    if min(cores, len(batches)) < 2:
        yield from (list(map(work, batch)) for batch in batches)
        return
    # As in preprocessing: decoding takes the most time, and only processes speed it up.
    context = get_context("forkserver")
    context.set_forkserver_preload([prepare.__module__])
    with ProcessPoolExecutor(
        cores, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        coming = pool.map(work, batches[0])
        for following in (*batches[1:], []):
            images = list(coming)
            coming = pool.map(work, following)  # decoded while the networks score this batch
            yield images


def _prepare(file: Path, settings: Preprocess) -> Image | None:
    try:
        return prepare(file, settings).image
    except UnreadableDicom:
        return None


def main(folder: Path, files: Path, out: Path) -> None:
    """Score the files that the column `path` of a CSV names; add the column `probability`.

    Raises:
        UserError: if a file of the predictor is missing or damaged.
    """
    table = pd.read_csv(files, dtype=str, keep_default_na=False)
    predictor = load_predictor(folder)
    pin(derive_seed(predictor.params.seed, "scoring"), predictor.params.threads)
    paths = [Path(path) for path in table["path"]]
    scores = list(track(score_files(predictor, paths), "scored", len(paths)))
    table["probability"] = pd.Series(scores, dtype="float64", index=table.index)
    write_csv(out, table)


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
