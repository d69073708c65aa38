"""File to written PNG, in each transfer syntax: ours against others, time and likeness.

    uv pip install --no-deps pylibjpeg==2.1.0 pylibjpeg-openjpeg==2.6.0 pylibjpeg-libjpeg==2.5.0 \
        pylibjpeg-rle==2.2.0 python-gdcm==3.2.6
    python benchmarks/decode.py                    # 9 repetitions; 4 minutes on a core at rest
    python benchmarks/decode.py --stage 200        # the preprocess stage on so many JPEG 2000 files
    python benchmarks/decode.py --stage 200 --syntax "lossless JPEG"
    python benchmarks/decode.py --small            # a quick look: 1024 x 832, one repetition

One phantom of 4096 x 3328 pixels and 12 bits is drawn and encoded in each syntax. Each way reads it
again and again in a process of its own with one thread, as a process of a pool does: what another
way did to the memory before can double the time. The times are medians of wall time and, beside
them, of CPU time. The notebooks' way is what this project grew out of: dicomsdl to floating point,
minimum and maximum to 0 and 1, bilinear to 1024, PNG. PSNR is against a full decode with area
averaging, inside the breast, in decibels of 255.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import dicomsdl
import imagecodecs
import numpy as np
import pandas as pd
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from mammo.base.processor import count_cores
from mammo.base.settings import load_params
from mammo.data.tables import image_file
from mammo.datasets.dicom_writer import MammogramFacts, TransferSyntax, Window, encode_mammogram
from mammo.datasets.phantom.plan import plan_women
from mammo.datasets.phantom.view import draw_view
from mammo.dicom.reader import read_mammogram
from mammo.imaging.breast_mask import segment_breast
from mammo.intake.cached_prepare import prepare_cached

WINDOW = Window(1480, 2900)
SETTINGS = load_params().preprocess
WRITTEN = {
    "JPEG 2000": TransferSyntax.JPEG_2000,
    "lossless JPEG": TransferSyntax.JPEG_LOSSLESS,
    "RLE": TransferSyntax.RLE,
    "uncompressed": TransferSyntax.UNCOMPRESSED,
}
"""What the project's own writer can encode."""
Pixels = NDArray[np.uint16]
Way = Callable[[Path, Path], None]


def draw(height: int) -> Pixels:
    """A phantom's MLO view, (height, height * 13 / 16)."""
    woman = next(woman for woman in plan_women(12, 2023) if not woman.machine.inverted)
    machine = replace(woman.machine, scale=1.0, width_to_height=3328 / 4096)
    return draw_view(replace(woman, machine=machine), woman.breasts[0], "MLO", height).pixels


def encode(pixels: Pixels) -> dict[str, bytes]:
    """The file in each syntax, by name."""
    files = {name: encode_one(pixels, "1", name) for name in WRITTEN}
    lossy = imagecodecs.jpeg2k_encode(
        pixels, codecformat="j2k", reversible=False, bitspersample=12, level=70
    )
    others = {
        "JPEG 2000 lossy": (uid.JPEG2000, lossy),
        "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode(pixels)),
        "HTJ2K": (uid.HTJ2KLossless, imagecodecs.htj2k_encode(pixels)),
    }
    for name, (syntax, frame) in others.items():
        files[name] = replace_frame(files["JPEG 2000"], syntax, bytes(frame))
    return files


def replace_frame(content: bytes, syntax: uid.UID, frame: bytes) -> bytes:
    """The file with another frame."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    stream = pydicom.filebase.DicomBytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return bytes(stream.getvalue())


def read_as_notebooks(source: Path) -> NDArray[np.float64]:
    """The picture from 0 to 1, at its full size, as the notebooks had it."""
    file = dicomsdl.open(str(source))
    pixels = file.pixelData()
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    if file.getPixelDataInfo()["PhotometricInterpretation"] == "MONOCHROME1":
        pixels = 1 - pixels
    return np.asarray(pixels)


def notebooks(source: Path, target: Path) -> None:
    """As the notebooks did it."""
    pixels = read_as_notebooks(source)
    height, width = pixels.shape
    small = cv2.resize(pixels, (1024 * width // height, 1024))  # theirs was a square
    cv2.imwrite(str(target), (small * 255).astype(np.uint8))


def by_pydicom(plugin: str, long_side: int, source: Path, target: Path) -> None:
    """Pydicom with a plugin, area averaging, and the window."""
    dataset = pydicom.dcmread(source)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        pixels, _ = get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin=plugin)
    else:
        pixels = dataset.pixel_array
    height, width = pixels.shape
    size = long_side * width // height, long_side
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = (small - (WINDOW.center - 0.5)) / (WINDOW.width - 1) + 0.5
    cv2.imwrite(str(target), np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8))


def ours(long_side: int, source: Path, target: Path) -> None:
    """What the preprocess stage does with a file."""
    settings = SETTINGS.model_copy(update={"long_side": long_side})
    target.write_bytes(prepare_cached(source, settings, None).png)


WAYS: dict[str, Way] = {
    "notebooks 1024": notebooks,
    "pylibjpeg 1024": partial(by_pydicom, "pylibjpeg", 1024),
    "gdcm 1024": partial(by_pydicom, "gdcm", 1024),
    "ours 1024": partial(ours, 1024),
    "ours 2048": partial(ours, 2048),
}


def measure(way: Way, source: Path, target: Path) -> tuple[float, float]:
    """Seconds of wall and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    way(source, target)
    return time.perf_counter() - wall, time.process_time() - cpu


def likeness(source: Path, target: Path, mirrored: bool) -> float:
    """PSNR inside the breast against a full decode with area averaging; NaN for another picture."""
    image = cv2.imread(str(target), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    full = read_mammogram(source, max(image.shape), full_decode=True).pixels
    if mirrored and not np.array_equal(image, full):
        full = full[:, ::-1] if np.abs(full[:, ::-1] - 1.0 * image).mean() < 20 else full
    error = np.mean((image.astype(float) - full)[segment_breast(np.ascontiguousarray(full))] ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def compare(folder: Path, height: int, repetitions: int) -> None:
    """Print a table, and the peak memory of our way."""
    files = encode(draw(height))
    print(
        "| syntax, MB | way | wall ms | CPU ms | times as fast (CPU) | PSNR dB |\n|" + " --- |" * 6
    )
    for name, content in files.items():
        source = folder / f"{name}.dcm"
        source.write_bytes(content)
        size, base = len(content) / 1e6, float("nan")
        for way in WAYS:
            told = again("--way", way, "--repetitions", repetitions, "--file", source).split()
            if not told:
                print(f"| {name}, {size:.1f} | {way} | cannot | | | |", flush=True)
                continue
            wall, cpu = map(float, told)
            base = cpu if way.startswith("notebooks") else base
            psnr = likeness(source, source.with_suffix(".png"), "ours" in way)
            shown = "" if way.startswith("notebooks") else f"{psnr:.1f}"  # it has no window
            print(
                f"| {name}, {size:.1f} | {way} | {wall:.0f} | {cpu:.0f} | {base / cpu:.1f} "
                f"| {shown} |",
                flush=True,
            )
    print()
    for name in files:
        alone = again("--one", folder / f"{name}.dcm").strip()
        print(f"Peak memory of a process that reads {name} our way: {alone} MB")


def again(*options: object) -> str:
    """What this script prints with other options, in a process that has done nothing else."""
    command = [sys.executable, sys.argv[0], *map(str, options)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def medians(way: str, source: Path, repetitions: int) -> None:
    """Print milliseconds of wall and of CPU of a way; nothing if it does not know the syntax."""
    taken = []
    for repetition in range(repetitions + 1):  # the first warms up and is not counted
        try:
            now = measure(WAYS[way], source, source.with_suffix(".png"))
        except Exception:  # noqa: BLE001  (whatever a library raises: it cannot read this file)
            return
        taken += [now] * (repetition > 0)
    print(*(1e3 * statistics.median(one) for one in zip(*taken, strict=True)))


def one(source: Path) -> None:
    """Read a file as a worker of the stage does, and print the peak memory in MB."""
    for _ in range(3):
        prepare_cached(source, SETTINGS, None)
    print(round(peak("self")))


def peak(process: int | str) -> float:
    """The most memory that a process has had, in MB; ru_maxrss would count its parent's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def stage(folder: Path, height: int, count: int, syntax: str) -> None:
    """The whole stage on all cores against the notebooks' pool of two."""
    pixels = draw(height)
    rows = []
    for number in range(count):
        image = f"{number:04d}"
        path = folder / "data" / image_file(str(number // 4), image)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Other pixels in each, drawn in no time.
        path.write_bytes(encode_one(np.roll(pixels, 3 * number, axis=0), image, syntax))
        rows.append([1, number // 4, image, "L", "MLO", 60, 0, 0, 0, "", 0, "B", 1, 0])
    names = (
        "site_id patient_id image_id laterality view age cancer biopsy invasive BIRADS implant "
        "density machine_id difficult_negative_case"
    )
    pd.DataFrame(rows, columns=names.split()).to_csv(folder / "data/train.csv", index=False)
    sources = sorted((folder / "data/train_images").rglob("*.dcm"))
    targets = [folder / f"{path.stem}.png" for path in sources]
    begin = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(notebooks, sources, targets))
    theirs = time.perf_counter() - begin
    # In a process of its own, as DVC runs it; its time of starting counts.
    (folder / "params.yaml").write_text(Path("params.yaml").read_text())
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stages.preprocess"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "MAMMOFLOW_STORE": "off"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    mine = time.perf_counter() - begin
    print(
        f"{count} files of {syntax}, {count_cores()} cores: the notebooks' pool of "
        f"two {theirs:.1f} s, the stage {mine:.1f} s: {theirs / mine:.1f} times as fast"
    )


def encode_one(pixels: Pixels, image: str, syntax: str) -> bytes:
    """One file, in a syntax of WRITTEN."""
    about = MammogramFacts(image, image, "L", "MLO", ("A", "R"), windows=(WINDOW,))
    return encode_mammogram(pixels, about, WRITTEN[syntax])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", type=int, metavar="FILES")
    parser.add_argument("--syntax", choices=WRITTEN, default="JPEG 2000", help="of --stage")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.one:
        one(options.one)
        return
    if options.way:
        medians(options.way, options.file, options.repetitions)
        return
    height, repetitions = (1024, 1) if options.small else (4096, options.repetitions)
    with tempfile.TemporaryDirectory() as name:
        if options.stage:
            stage(Path(name), height, options.stage, options.syntax)
        else:
            compare(Path(name), height, repetitions)


if __name__ == "__main__":
    main()
