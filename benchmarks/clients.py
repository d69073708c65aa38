"""A thousand requests from eight clients against the answers of one, byte for byte.

    python -m benchmarks.clients                         # the service, then MLflow's own server
    python -m benchmarks.clients --requests 100          # for a try

Both serve the same small predictor; each answer has its heatmap.
"""

import mammo  # noqa: F401, I001  (before NumPy, which it pins)

import base64
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import mlflow
import typer

from flows.tracking.register import SIGNATURE
from mammo.datasets.phantom.draw import draw_phantom_dicom
from tests.imports import ROOT
from tests.support.learning import write_untrained_predictor
from tests.support.serving import serving
from tests.support.toys import environment, find_free_port, server

CLIENTS, IMAGES = 8, 10
Ask = Callable[[bytes], bytes]


def compare(name: str, ask: Ask, dicoms: Sequence[bytes], requests: int) -> int:
    """Print how many answers to many clients at once differ from those to one; that number."""
    begin = time.perf_counter()
    alone = [ask(dicom) for dicom in dicoms]
    single = (time.perf_counter() - begin) / len(dicoms)
    asked = [number % len(dicoms) for number in range(requests)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda number: ask(dicoms[number]), asked))
    seconds = time.perf_counter() - begin
    other = sum(answer != alone[n] for n, answer in zip(asked, answers, strict=True))
    print(
        f"{name}: {requests} requests of {CLIENTS} clients in {seconds:.0f} s "
        f"({requests / seconds:.1f}/s; one client {1 / single:.1f}/s), {other} other answers",
        flush=True,
    )
    return other


def main(requests: Annotated[int, typer.Option(help="Of all clients.")] = 1000) -> None:
    """Ask both servers; exit with 1 if an answer differs."""
    dicoms = [draw_phantom_dicom(seed=seed) for seed in range(IMAGES)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_untrained_predictor(Path(scratch) / "predictor")
        with serving(folder) as ours:
            other = compare(
                "our service",
                lambda dicom: ours.post(dicom, query="?heatmap=1")[1],
                dicoms,
                requests,
            )
        model, port = Path(scratch) / "model", find_free_port()
        mlflow.pyfunc.save_model(
            model,
            python_model=str(ROOT / "flows/tracking/served_model.py"),
            artifacts={"predictor": str(folder)},
            code_paths=[str(ROOT / "mammo")],
            signature=SIGNATURE,
            pip_requirements=[],
        )
        url = f"http://127.0.0.1:{port}"
        command = ["mlflow", "models", "serve", "-m", str(model), "-p", f"{port}"]
        command += ["--env-manager", "local"]

        def invoke(dicom: bytes) -> bytes:
            record = {"dicom": base64.b64encode(dicom).decode()}
            body = json.dumps({"dataframe_records": [record]}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/invocations", body, headers)
            with urllib.request.urlopen(request, timeout=300) as answer:
                return bytes(answer.read())

        with server(f"{url}/health", *command, env=environment()):
            other += compare("MLflow's server", invoke, dicoms, requests)
    sys.exit(min(other, 1))


if __name__ == "__main__":
    typer.run(main)
