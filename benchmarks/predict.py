"""How fast a model answers: one exam, a folder of fifty, a server; against the notebooks' chain.

    python -m benchmarks.predict                           # about fifteen minutes on two cores
    python -m benchmarks.predict --exams 4 --small         # for a try: 1024 x 832
    uv pip install --no-deps openvino==2025.3.0
    python -m benchmarks.predict --engines                 # other engines for the two networks

An exam has four views of 4096 x 3328 pixels of 12 bits in JPEG 2000, phantoms. Twelve different
views are drawn; each exam has its own ids. The model is that of params.yaml, its weights drawn by
chance. Ours is what `mammoflow predict` and `mammoflow serve` call, the heat's peak included. The
notebooks' chain is as in what this project grew out of: dicomsdl to floating point, minimum and
maximum to 0 and 1, YOLO at 1024, a crop, the classifier at 1024 x 1024, one image at a time, no
heat. Its networks are ours, with other weights; nothing but the size of the input differs. Exams
are answered by both in turns. Peak memory is that of a process and of those that read for it (PSS).
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import importlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import cv2
import numpy as np
import psutil
import pydicom
import torch
import typer
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from rich.progress import track
from torch import nn

from benchmarks.decode import read_as_notebooks
from mammo.base.determinism import pin
from mammo.base.processor import count_cores
from mammo.base.settings import Params, load_params
from mammo.classifier.inputs import normalise
from mammo.classifier.network import Classifier, build_classifier, save_classifier
from mammo.datasets.dicom_writer import MammogramFacts, TransferSyntax, Window, encode_mammogram
from mammo.datasets.phantom.plan import plan_women
from mammo.datasets.phantom.view import draw_view
from mammo.detector.detector import Detector, build_detector, save_detector
from mammo.imaging.gray_images import Gray
from mammo.serving.exams import UnreadFile, examine_files
from mammo.serving.predictor import load_predictor
from tests.support.serving import make_form, serving

CLIENTS, DRAWN, EXAMS, SIDE = 8, 3, 20, 1024
"""Clients of the server; exams that are drawn; exams that are answered one at a time; pixels of
the input of the notebooks' networks."""

VIEWS = ("CC", "MLO")


def draw_exams(folder: Path, count: int, height: int) -> list[list[Path]]:
    """Write the files of `count` exams of four views, (height, height * 13 / 16); their paths."""
    women = [woman for woman in plan_women(30, 7) if not woman.machine.inverted][:DRAWN]
    written = []
    for woman in track(women, "drawing phantoms"):
        machine = replace(woman.machine, scale=1.0, width_to_height=13 / 16)
        woman = replace(woman, machine=machine)
        for breast in woman.breasts:
            for view in VIEWS:
                about = MammogramFacts(
                    patient_id="1",
                    image_id="1",
                    laterality=breast.laterality,
                    view=view,
                    patient_orientation=("A", "R" if breast.laterality == "L" else "L"),
                    windows=(Window(1480, 2900),),
                )
                pixels = draw_view(woman, breast, view, height).pixels
                written.append(encode_mammogram(pixels, about, TransferSyntax.JPEG_2000))
    return [
        [_write_copy(folder, number, view, written) for view in range(4)] for number in range(count)
    ]


def _write_copy(folder: Path, exam: int, view: int, written: Sequence[bytes]) -> Path:
    """Write a drawn view as one of an exam of its own."""
    dataset = pydicom.dcmread(io.BytesIO(written[(4 * exam + view) % len(written)]))
    dataset.PatientID = f"{exam}"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[f"study {exam}"])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"image {exam} {view}"])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{exam:03d}-{view}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def build_networks(params: Params, image_size: int) -> tuple[Detector, Classifier]:
    """Both networks of the settings, with weights drawn by chance."""
    pin(params.seed, params.threads)
    settings = params.classifier.model_copy(update={"weights": "none"})
    model = build_classifier(settings).eval()
    with torch.no_grad():  # a head that has learnt nothing says the same of every image
        for weights in model.head.parameters():
            weights.normal_(std=0.05).abs_()
    return build_detector(params.detector.architecture, image_size), model


def write_predictor(folder: Path, params: Params) -> Path:
    """Write a predictor as a registered model holds it; its folder."""
    detector, model = build_networks(params, params.detector.image_size)
    for part in ("detector", "classifier"):
        (folder / part).mkdir(parents=True)
    (folder / "params.yaml").write_text(Path("params.yaml").read_text(encoding="utf-8"))
    save_detector(detector, folder / "detector")
    save_classifier(model, params.classifier, folder / "classifier")
    return folder


def notebooks_way(params: Params) -> Callable[[Sequence[Path]], None]:
    """The chain of the notebooks, for the images of an exam."""
    detector, model = build_networks(params, SIDE)

    def read(path: Path) -> Gray:
        return np.asarray(cv2.resize(read_as_notebooks(path), (SIDE, SIDE)) * 255, np.uint8)

    def answer(paths: Sequence[Path]) -> None:
        for path in paths:
            image = read(path)
            found = detector.find([image])[0]
            if found is not None:
                box = found.box
                image = image[int(box.y1) : int(box.y2) + 1, int(box.x1) : int(box.x2) + 1]
            picture = torch.from_numpy(cv2.resize(image, (SIDE, SIDE)))
            with torch.inference_mode():
                float(model(normalise(picture[None])).sigmoid())

    return answer


@contextmanager
def peak_memory(number: int) -> Iterator[list[float]]:
    """Measure the most memory, in MB, of a process and its children: the list's only item."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process(number)
        while not ended.wait(0.2):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # it has ended meanwhile
                    continue
            peak[0] = max(peak[0], total / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def show(name: str, seconds: Sequence[float]) -> float:
    """Print median and 95th percentile of the seconds of an exam; the median."""
    late = quantiles(seconds, n=20, method="inclusive")[-1]
    middle = median(seconds)
    print(f"| {name} | {middle:.2f} s | {late:.2f} s | {60 / middle:.1f} |", flush=True)
    return middle


def measure(exams: Sequence[Sequence[Path]], folder: Path, params: Params) -> None:
    """Print the tables of ours and the notebooks', and of the server."""
    chain = notebooks_way(params)
    bodies = [make_form({path.name: path.read_bytes() for path in files}) for files in exams]
    with serving(folder, body=2 * max(len(body) for body, _ in bodies)) as server:

        def ask(number: int) -> None:
            status, content = server.post(*bodies[number])
            if status != 200:
                raise RuntimeError(f"{status}: {content[:200]!r}")

        turns: dict[str, list[float]] = {"the server, one client": [], "the notebooks' chain": []}
        ways: list[Callable[[int], None]] = [ask, lambda number: chain(exams[number])]
        for number in range(min(len(exams), EXAMS + 1)):
            for taken, way in zip(turns.values(), ways, strict=True):
                begin = time.perf_counter()
                way(number)
                if number:  # the first warms up
                    taken.append(time.perf_counter() - begin)
        print("| one exam at a time | median | p95 | exams a minute |\n|" + " --- |" * 4)
        alone, slow = (show(name, seconds) for name, seconds in turns.items())
        begin = time.perf_counter()
        with peak_memory(server.process.pid) as served_peak, ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, range(len(exams))))
        served = (time.perf_counter() - begin) / len(exams)
    predictor, workers = load_predictor(folder), count_cores()
    every = [file for files in exams for file in files]
    begin = time.perf_counter()
    with peak_memory(os.getpid()) as peak:
        for found in examine_files(predictor, every, workers):
            if isinstance(found, UnreadFile):
                raise RuntimeError(found.reason)
    whole = (time.perf_counter() - begin) / len(exams)
    print("\n| in bulk | exams a minute | peak memory |\n| --- | --- | --- |")
    print(f"| a folder of {len(exams)} exams | {60 / whole:.1f} | {peak[0]:.0f} MB |")
    print(f"| the server, {CLIENTS} clients | {60 / served:.1f} | {served_peak[0]:.0f} MB |")
    print(
        f"\nAs fast as the notebooks' chain: one exam {slow / alone:.1f} times, the folder "
        f"{slow / whole:.1f} times. The server has {whole / served:.2f} of the folder's exams."
    )


Engine = Callable[[nn.Module, torch.Tensor], Callable[[NDArray[np.float32]], NDArray[Any]]]


def in_torch(model: Callable[..., Any], _example: torch.Tensor) -> Callable[[Any], Any]:
    """As it is."""

    @torch.inference_mode()
    def run(pixels: NDArray[np.float32]) -> NDArray[Any]:
        return _first(model(torch.from_numpy(pixels))).numpy()

    return run


def in_compiled_torch(model: nn.Module, example: torch.Tensor) -> Callable[[Any], Any]:
    """By torch.compile."""
    return in_torch(torch.compile(model), example)


def in_onnxruntime(model: nn.Module, example: torch.Tensor) -> Callable[[Any], Any]:
    """By ONNX Runtime."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(
        export(model, example), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def in_openvino(model: nn.Module, example: torch.Tensor) -> Callable[[Any], Any]:
    """By OpenVINO, in float32."""
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(export(model, example)), "CPU", config)
    return lambda pixels: np.asarray(compiled(pixels)[0])


def export(model: nn.Module, example: torch.Tensor) -> bytes:
    """A network in ONNX's format."""
    importlib.import_module("onnx")
    with tempfile.NamedTemporaryFile(suffix=".onnx") as written:
        torch.onnx.export(model, (example,), written.name, opset_version=17, dynamo=False)
        return Path(written.name).read_bytes()


def _first(output: Any) -> torch.Tensor:
    """A network's output; YOLO's has the feature maps beside it."""
    found = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(found, torch.Tensor)
    return found


ENGINES: dict[str, Engine] = {
    "torch": in_torch,
    "torch.compile": in_compiled_torch,
    "ONNX Runtime": in_onnxruntime,
    "OpenVINO": in_openvino,
}


def compare_engines(params: Params, repetitions: int = 60) -> None:
    """Print what each engine takes for an image, and how its answers differ from torch's."""
    detector, model = build_networks(params, params.detector.image_size)
    settings = params.classifier
    sizes = {
        "classifier": (settings.image_height, settings.image_width),
        "detector": (params.detector.image_size, params.detector.image_size),
    }
    networks: dict[str, nn.Module] = {"classifier": model, "detector": detector.model}
    print("| network | engine | median | times as fast | largest difference |\n|" + " --- |" * 5)
    for name, network in networks.items():
        rng = np.random.default_rng(1)
        noise = rng.random((repetitions, *sizes[name], 3), np.float32)
        smooth = [cv2.GaussianBlur(one, (0, 0), 9) for one in noise]
        pictures = [np.ascontiguousarray(one.transpose(2, 0, 1)[None]) for one in smooth]
        wanted: list[NDArray[Any]] = []
        base = float("nan")
        for engine, build in ENGINES.items():
            try:
                run = build(network, torch.from_numpy(pictures[0]))
            except ImportError as error:
                print(f"| {name} | {engine} | not installed: {error.name} | | |", flush=True)
                continue
            taken, found = [], []
            for picture in [*pictures[:5], *pictures]:  # the first five warm up
                begin = time.perf_counter()
                answer = run(picture)
                taken.append(time.perf_counter() - begin)
                found.append(answer)
            middle, found = median(taken[5:]), found[5:]
            if engine == "torch":
                base, wanted = middle, found
            apart = max(
                float(np.abs(_probability(name, a) - _probability(name, b)).max())
                for a, b in zip(found, wanted, strict=True)
            )
            print(
                f"| {name} | {engine} | {1000 * middle:.1f} ms | {base / middle:.2f} "
                f"| {apart:.1e} |",
                flush=True,
            )


def _probability(network: str, output: NDArray[Any]) -> NDArray[np.float64]:
    """What the output says as a probability: of the target, or of a breast in each cell."""
    found = np.asarray(output, np.float64)
    return 1 / (1 + np.exp(-found)) if network == "classifier" else found[:, 4]


def main(
    exams: Annotated[int, typer.Option(min=2, help="Of the folder.")] = 50,
    small: Annotated[bool, typer.Option("--small", help="Views of 1024 x 832.")] = False,
    engines: Annotated[bool, typer.Option("--engines", help="The engines' table alone.")] = False,
) -> None:
    """Print the tables, as Markdown."""
    params = load_params()
    if engines:
        compare_engines(params)
        return
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        images.mkdir()
        drawn = draw_exams(images, exams, 1024 if small else 4096)
        folder = write_predictor(Path(scratch) / "predictor", params)
        print(f"{os.cpu_count()} cores, {drawn[0][0].stat().st_size / 1e6:.1f} MB a view\n")
        measure(drawn, folder, params)


if __name__ == "__main__":
    typer.run(main)
