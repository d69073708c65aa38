"""What a GPU gives: training with everything against a bare loop, predictions, and the same bytes.

    python -m benchmarks.gpu                  # at most four minutes on one GPU
    MAMMOFLOW_DEVICE=cpu python -m benchmarks.gpu

One table: for three networks at the sizes of large sets, in the precision of `recipes/rsna.yaml`
with deterministic kernels, images a second of

* `fit` with everything: pictures from PNG files, decoded once into a file that is mapped, and
  changed at random, and the average of the weights. The first epoch, decoding included, is apart;
* a bare loop: the same network, loss and optimiser, on one batch of random numbers that stays on
  the GPU;
* `predict`, from PNG files.

Then all stages of a tiny project, twice at the same time in processes of their own, whose bytes are
compared; and the probabilities of the GPU against those of the CPU. Each part has its time, and
says if that did not do. On a machine without a GPU it is a rehearsal at small sizes.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import copy
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mammo.base.atomic_files import write_bytes
from mammo.base.determinism import pin
from mammo.base.processor import count_cores, read_processor_name
from mammo.base.settings import Classifier, load_params
from mammo.classifier import inputs
from mammo.classifier.inputs import normalise
from mammo.classifier.network import build_classifier
from mammo.classifier.predict import predict
from mammo.classifier_training.examples import Examples, keep_pictures
from mammo.classifier_training.fit import Scores, find_trainable, fit
from mammo.imaging.png import encode_png
from mammo.learning.device import choose_device, describe_device
from tests.imports import ROOT
from tests.support.contents import contents
from tests.support.tiny_pipeline import STAGES, prepare

Precision = Literal["float32", "bfloat16"]

BUDGET = 240.0  # seconds of the whole, on a GPU
REHEARSAL = 1800.0  # on a CPU, which may be busy
BARE, EPOCH = 5.0, 5.0  # seconds that a bare loop, and an epoch of `fit`, are to take
EPOCHS = 3  # of which the first is apart
FILES = 192  # different pictures; more are wanted by taking them again
STAGES_TAKE = 75.0  # seconds that are kept for the stages and the comparison

NETWORKS = (  # backbone, height, width, batch
    ("convnext_tiny", 1536, 960, 12),
    ("resnet50", 1024, 512, 32),
    ("efficientnet_lite0", 768, 512, 32),
)
SMALL = 24  # a rehearsal's sides are those of NETWORKS divided by this, and its batches are of 4

PEAKS = {  # of dense bfloat16 products, 10^12 operations a second: the makers' data sheets
    "A100": 312, "H100 PCIe": 756, "H100": 989, "H200": 989, "GH200": 989, "B200": 2250,
    "L40S": 362, "L4": 121, "A10G": 70, "A10": 125,
}  # fmt: skip


@dataclass(frozen=True)
class NetworkSpeed:
    """What was measured of one network; images a second, but for the last two."""

    fit: float
    first_epoch: float
    bare: float
    predicted: float
    memory: float  # GiB at most, of `fit`; 0 on a CPU
    operations: float  # of training on one image


class TimeIsUpError(Exception):
    """A training has had its time."""


def main() -> None:
    """Print what is there, the table, and the comparisons."""
    start = time.perf_counter()
    device = choose_device()
    card = device.type == "cuda"
    pin(1, count_cores())
    budget = BUDGET if card else REHEARSAL
    precision = describe_machine(device)
    print(
        f"{'':36}{'fit':>9}{'1st epoch':>11}{'bare':>9}{'fit/bare':>10}{'predict':>9}{'GiB':>7}"
        f"{'of peak':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        os.environ["MAMMOFLOW_STORE"] = str(Path(scratch) / "store")
        inputs.CACHE_BYTES = 0  # as a large set: from a file that is mapped
        for number, (backbone, height, width, batch) in enumerate(NETWORKS):
            left = budget - STAGES_TAKE - (time.perf_counter() - start)
            share = left / (len(NETWORKS) - number)
            if not card:
                height, width, batch = max(64, height // SMALL), max(32, width // SMALL), 4
            name = f"{backbone}, {height} x {width}, batch {batch}"
            changes = {"backbone": backbone, "image_height": height, "image_width": width}
            settings = load_params(ROOT / "recipes" / "rsna.yaml").classifier.model_copy(
                update={
                    **changes,
                    "batch_size": batch,
                    "precision": precision,
                    "weights": "none",
                    "epochs": EPOCHS,
                    "patience": EPOCHS,
                    "balance": "none",
                }
            )
            try:
                print_row(name, measure(settings, device, Path(scratch) / backbone, share), device)
            except torch.OutOfMemoryError:
                print(f"{name:36} does not fit into the memory of this GPU", flush=True)
            except TimeIsUpError:
                print(f"{name:36} took longer than its {share:.0f} s", flush=True)
            if card:
                torch.cuda.empty_cache()
        left = budget - 15 - (time.perf_counter() - start)
        print(compare_stages(Path(scratch), left), flush=True)
    print(compare_with_cpu(device))
    print(f"{time.perf_counter() - start:.0f} s in all")


def describe_machine(device: torch.device) -> Precision:
    """Print what there is and what is missing; return the precision to measure in."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(
        f"{read_processor_name()}, {count_cores()} cores; Python {python}, "
        f"torch {torch.__version__}"
    )
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print("this Python is not one of 3.11 to 3.13, which the project is tested on")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
        print("this torch is older than 2.11, which the project is made for")
    if device.type == "cpu":
        print(
            "no card: a rehearsal at small sizes, in float32 since a CPU is slow in bfloat16; its"
            " speeds say nothing of a GPU's"
        )
        return "float32"
    start = time.perf_counter()
    torch.zeros(1, device=device).item()
    print(f"the card answers {time.perf_counter() - start:.1f} s after it is first asked")
    print(", ".join(f"{name} {value}" for name, value in describe_device(device).items()))
    if not is_kept_ready():
        print(
            "persistence mode is not known to be on: without it the driver lets go of the card"
            " between two stages, and the next one waits seconds for it; see docs/workers.md"
        )
    if find_peak(device) is None:
        print("the bfloat16 peak of this card is not in the table: no share of it is given")
    precision = find_precision()
    if precision == "float32":
        print("this card has no bfloat16: everything is measured in float32")
    return precision


def is_kept_ready() -> bool:
    """Whether the driver keeps all cards ready while no process uses them."""
    command = ["nvidia-smi", "--query-gpu=persistence_mode", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return set(said.split()) == {"Enabled"}


def find_precision() -> Precision:
    """The precision that large sets are trained in on this machine."""
    without = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "float32" if without else "bfloat16"


def find_peak(device: torch.device) -> float | None:
    """The operations a second that the card's data sheet promises in bfloat16, if it is known."""
    if device.type == "cpu":
        return None
    name = torch.cuda.get_device_name(device)
    found = [peak for part, peak in PEAKS.items() if part in name]
    return found[0] * 1e12 if found else None


def print_row(name: str, row: NetworkSpeed, device: torch.device) -> None:
    """Print one line of the table."""
    peak = find_peak(device)
    share = f"{row.fit * row.operations / peak:.0%}" if peak else "-"
    memory = f"{row.memory:.1f}" if row.memory else "-"
    print(
        f"{name:36}{row.fit:9.1f}{row.first_epoch:11.1f}{row.bare:9.1f}{row.fit / row.bare:10.2f}"
        f"{row.predicted:9.1f}{memory:>7}{share:>9}",
        flush=True,
    )


def measure(
    settings: Classifier, device: torch.device, folder: Path, seconds: float
) -> NetworkSpeed:
    """Measure one network.

    Raises:
        TimeIsUpError: `seconds` did not do.
    """
    deadline = time.perf_counter() + seconds
    card = device.type == "cuda"
    bare = run_bare_loop(settings, device)
    batch = settings.batch_size
    steps = max(4, min(100, round(bare * EPOCH / batch))) if card else 2
    count = batch * steps
    files = write_pictures(folder, settings, min(FILES, count))
    rois = [files[number % len(files)] for number in range(count)]
    if card:
        torch.cuda.reset_peak_memory_stats(device)
    stops = [0.0]

    def stop(_: Scores) -> None:
        stops.append(time.perf_counter())
        if stops[-1] > deadline and len(stops) < EPOCHS + 1:
            raise TimeIsUpError

    targets = np.arange(count) % 2
    with redirect_stdout(io.StringIO()):
        few = Examples(keep_pictures(rois[:4], settings), targets[:4], np.arange(4))
        stops[0] = time.perf_counter()  # decoding belongs to the first epoch
        train = Examples(keep_pictures(rois, settings), targets, np.arange(count))
    with redirect_stdout(io.StringIO()):
        result = fit(settings, train, few, 1, stop)
    epochs = np.diff(stops)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if card else 0.0
    model = result.model.to(device)
    start = time.perf_counter()
    predict(model, rois, settings)
    predicted = count / (time.perf_counter() - start)
    return NetworkSpeed(
        fit=count / float(epochs[1:].min()),
        first_epoch=count / float(epochs[0]),
        bare=bare,
        predicted=predicted,
        memory=memory,
        operations=count_operations(settings),
    )


def write_pictures(folder: Path, settings: Classifier, count: int) -> list[Path]:
    """Write PNG files with a bright shape each, a fifth larger than the network's pictures."""
    height, width = settings.image_height * 6 // 5, settings.image_width * 6 // 5
    paths = [folder / f"{number}.png" for number in range(count)]

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        picture = rng.integers(0, 60, (height, width), dtype=np.uint8)  # noise, as films have
        picture[: height * 3 // 4, : rng.integers(width // 3, width)] += np.uint8(100)
        write_bytes(paths[number], encode_png(picture))

    with ThreadPoolExecutor(count_cores()) as pool:
        list(pool.map(write, range(count)))
    return paths


def run_bare_loop(settings: Classifier, device: torch.device) -> float:
    """Images a second of a training loop that does nothing else."""
    torch.manual_seed(1)
    model = build_classifier(settings).to(device).train()
    optimizer = torch.optim.AdamW(find_trainable(model), lr=1e-4, fused=True)
    loss_of = nn.BCEWithLogitsLoss()
    size = settings.batch_size, settings.image_height, settings.image_width
    pictures = normalise(torch.randint(0, 256, size, dtype=torch.uint8, device=device))
    targets = torch.arange(settings.batch_size, device=device).remainder(2).float()

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model(pictures), targets).backward()
        optimizer.step()

    return time_steps(step, device) * settings.batch_size


def time_steps(step: Callable[[], None], device: torch.device) -> float:
    """How many steps a second, after a few that warm up; a GPU is waited for every fourth step."""
    seconds, together = (BARE, 4) if device.type == "cuda" else (BARE / 5, 1)
    for _ in range(together):
        step()
    wait(device)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(together):
            step()
        steps += together
        wait(device)
    return steps / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_operations(settings: Classifier) -> float:
    """Operations of training on one image: those of products forward, and twice as many back."""
    backbone = build_classifier(settings).backbone.to("meta").eval()  # the head is next to nothing
    picture = torch.empty(1, 3, settings.image_height, settings.image_width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(picture)
    return 3.0 * int(counter.get_total_flops())


def compare_stages(folder: Path, seconds: float) -> str:
    """Run all stages of a tiny project twice, at the same time; say whether the bytes are the same.

    Args:
        folder: where the projects are made.
        seconds: how long they may take.
    """
    prepare_quietly(folder / "before")
    copies = [folder / name for name in ("one", "two")]
    started = []
    for copied in copies:
        shutil.copytree(folder / "before", copied)
        command = [sys.executable, "-m", "tests.support.tiny_pipeline", str(copied)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MAMMOFLOW_STORE": "off"}
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=quiet))
    deadline = time.perf_counter() + seconds
    try:
        for process in started:
            process.wait(max(0.1, deadline - time.perf_counter()))
    except subprocess.TimeoutExpired:
        for process in started:
            process.kill()
            process.wait()
        return f"the stages of a tiny project, twice: not done in {seconds:.0f} s"
    if any(process.returncode for process in started):
        return "the stages of a tiny project, twice: FAILED, with the lines above"
    one, two = (contents(copied / "outputs") for copied in copies)
    other = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    told = f"{len(other)} DIFFER, such as {min(other)}" if other else "the same bytes"
    return f"all {len(STAGES)} stages of a tiny project, twice: {len(one)} files, {told}"


def prepare_quietly(folder: Path) -> None:
    """Draw a tiny project, with its stages in the precision and on the device that is measured."""
    with redirect_stdout(io.StringIO()):
        prepare(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    if choose_device().type == "cuda":
        params["classifier"]["precision"] = find_precision()
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def compare_with_cpu(device: torch.device) -> str:
    """Say how far the probabilities of a GPU are from those of the CPU, with the same weights."""
    settings = load_params(ROOT / "params.yaml").classifier
    if device.type == "cpu":
        settings = settings.model_copy(update={"image_height": 64, "image_width": 48})
    torch.manual_seed(3)
    model = build_classifier(settings).eval()
    with torch.no_grad():  # spreads the probabilities
        model.head[3].get_parameter("weight").mul_(3)
    rng = np.random.default_rng(0)
    shape = settings.image_height, settings.image_width
    rois = [rng.integers(0, rng.integers(40, 255), shape, dtype=np.uint8) for _ in range(8)]
    on_cpu = predict(copy.deepcopy(model), rois, settings)
    lines = []
    tolerances: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
    for precision, allowed in tolerances.items():
        there = copy.deepcopy(model).to(device)
        there.precision = precision
        apart = float(np.abs(predict(there, rois, settings) - on_cpu).max())
        verdict = "within" if apart <= allowed else "BEYOND"
        lines.append(f"{precision} {apart:.1e} ({verdict} {allowed:g})")
    spread = float(np.ptp(on_cpu))
    return f"probabilities against the CPU's, which spread over {spread:.2f}: {', '.join(lines)}"


if __name__ == "__main__":
    main()
