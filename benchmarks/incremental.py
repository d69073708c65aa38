"""What a run costs after one file in a hundred was added, with and without the store.

    python benchmarks/incremental.py               # 5,000 small files; 10 minutes on two cores
    python benchmarks/incremental.py 200           # a quick look
    python benchmarks/incremental.py 5000 preprocess

Preprocess and crop_rois run three times each as DVC runs them, in processes of their own: on all
files but the last hundredth, with an empty store; on all files, with the store that this left; and
on all files without a store, to compare with, in time and byte by byte. The files are noisy half
ellipses of 320 x 256 pixels in JPEG 2000; the detector has learnt nothing, and is the same all the
time, since another detector is other crops.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.base.settings import load_params
from mammo.data.tables import image_file
from mammo.datasets.dicom_writer import MammogramFacts, TransferSyntax, Window, encode_mammogram
from mammo.detector.detector import build_detector, save_detector

COLUMNS = [
    *("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy"),
    *("invasive", "BIRADS", "implant", "density", "machine_id", "difficult_negative_case"),
]


def breast(height: int = 320, width: int = 256) -> NDArray[np.float64]:
    """A half ellipse, bright inside, 0 to 3000."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x / (0.6 * width), (y - 0.5 * height) / (0.4 * height))
    return np.asarray(np.where(distance < 1, 3000 * (1 - 0.6 * distance**2), 20))


def make(data: Path, count: int) -> pd.DataFrame:
    """Write the files; the table of them."""
    base, rows = breast(), []
    noise = np.random.default_rng(1).normal(0, 60, base.shape)
    for number in range(count):
        image, patient = f"{number:06d}", str(number // 4)
        pixels = base + np.roll(noise, divmod(number, noise.shape[1]), (0, 1))  # no two alike
        about = MammogramFacts(patient, image, "L", "CC", ("A", "R"), windows=(Window(1500, 3000),))
        path = data / image_file(patient, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = pixels.clip(0, 4095).astype(np.uint16)
        path.write_bytes(encode_mammogram(stored, about, TransferSyntax.JPEG_2000))
        rows.append([1, patient, image, "L", "CC", 60, 0, 0, 0, "", 0, "B", 1, 0])
    return pd.DataFrame(rows, columns=COLUMNS)


def run(folder: Path, stage: str, store: str) -> float:
    """Seconds that a stage takes."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "MAMMOFLOW_STORE": store}
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def compare(folder: Path, count: int, stages: Sequence[str], say: Callable[[str], None]) -> None:
    """Run everything in `folder` and tell the times."""
    table = make(folder / "data", count)
    shutil.copy("params.yaml", folder)
    (folder / "outputs/train_detector").mkdir(parents=True)
    save_detector(build_detector("yolo11n.yaml", 128), folder / "outputs/train_detector")
    new = max(1, count // 100)
    store = str(folder / "store")

    def times(rows: pd.DataFrame, store: str) -> list[float]:
        rows.to_csv(folder / "data/train.csv", index=False)
        return [run(folder, stage, store) for stage in stages]

    first = times(table[:-new], store)
    after = times(table, store)
    remembered = content(folder / "outputs")
    full = times(table, "off")
    same = content(folder / "outputs") == remembered
    say(f"{count} files, {new} of them new; outs {'the same' if same else 'DIFFERENT'}")
    say("| stage | full run, no store | empty store | after 1 % more | allowed: 3 % + 10 s |")
    say("|" + " --- |" * 5)
    for stage, *numbers in zip(stages, full, first, after, strict=True):
        shown = " | ".join(f"{number:.1f} s" for number in (*numbers, 0.03 * numbers[0] + 10))
        say(f"| {stage} | {shown} |")
    files = [path.stat().st_size for path in Path(store).rglob("*") if path.is_file()]
    say(f"The store: {len(files)} files, {sum(files) / 1e6:.0f} MB")
    if not same:
        raise SystemExit(1)


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
        stages = sys.argv[2:] or ["preprocess", "crop_rois"]
        compare(Path(name), count, stages, lambda line: print(line, flush=True))


if __name__ == "__main__":
    assert load_params()  # from the project's folder
    main()
