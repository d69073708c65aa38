"""Whether the service survives hostile requests, and its memory stays level.

    python -m benchmarks.hostile                 # ten minutes
    python -m benchmarks.hostile --minutes 2     # for a try

The service runs in a process of its own, over a small predictor. Two clients drive it at once:
schemathesis makes requests from its OpenAPI, right and wrong ones, and checks each answer against
it; the fuzzer of `tests/support/fuzz_dicom.py` sends damaged mammograms of each transfer syntax.
Every few seconds a good mammogram must have the answer that it had at first, byte for byte. Memory
is what the service and the processes that read its files have for themselves (USS).
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import psutil
import schemathesis
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests import Session
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from mammo.datasets.phantom.draw import draw_phantom_dicom
from tests.support.fuzz_dicom import changes, seeds
from tests.support.learning import write_untrained_predictor
from tests.support.serving import Server, serving

ROUND = 50  # requests of a kind, until the clock is looked at
LOOK = 5.0  # seconds between two looks at memory
FINE = (200, 400, 413, 415, 422, 503)  # what a damaged file may be answered with


def run_quietly(number: int, examples: int, test: Callable[[Any], None], drawn: Any) -> None:
    """Call a test with what Hypothesis draws, the same for the same number."""
    quiet = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    drawing: Any = given(drawn)(test)  # type: ignore[no-untyped-call]
    seeded: Any = seed(number)
    seeded(quiet(drawing))()


def ask_by_openapi(url: str, number: int, examples: int) -> Iterator[str]:
    """Send requests that the OpenAPI allows, and ones that it does not; yield what was wrong.

    Which bytes are a mammogram no schema says, so a body that it allows may be refused.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    faults: list[str] = []
    with Session() as session:

        def ask(case: Any) -> None:
            try:
                case.call_and_validate(
                    session=session, excluded_checks=[positive_data_acceptance], timeout=60
                )
            except (Failure, FailureGroup) as error:
                faults.append(f"{case.method} {case.path}: {error}")

        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                if mode is GenerationMode.POSITIVE or operation.path == "/predict":
                    drawn = operation.as_strategy(generation_mode=mode)
                    run_quietly(number, examples, ask, drawn)
    yield from faults


def send_damaged(server: Server, number: int, examples: int, statuses: Counter[int]) -> list[str]:
    """Send damaged mammograms; what was answered otherwise than by a finding or a refusal."""
    faults = []
    files = [file for syntax in seeds().values() for file in syntax]

    def send(drawn: tuple[bytes, list[Any]]) -> None:
        content, damage = bytearray(drawn[0]), drawn[1]
        for change in damage:
            change(content)
        status, body = server.post(bytes(content), query="?heatmap=1")
        statuses[status] += 1
        if status not in FINE or b"Traceback" in body:
            faults.append(f"a damaged file: {status} {body[:200]!r}")

    run_quietly(number, examples, send, st.tuples(st.sampled_from(files), changes()))
    return faults


def measure_memory(server: Server) -> tuple[float, int]:
    """What the service and its children have for themselves, in MiB, and how many children."""
    process = psutil.Process(server.process.pid)
    children = process.children(recursive=True)
    total = 0
    for one in (process, *children):
        try:
            total += one.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20, len(children)


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
) -> None:
    """Drive the service, and print its memory; exit with 1 if anything was wrong."""
    faults: list[str] = []
    statuses: Counter[int] = Counter()
    asked = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_untrained_predictor(Path(scratch) / "predictor")
        good = draw_phantom_dicom(seed=1)
        with serving(folder) as server:
            first = server.post(good, query="?heatmap=1")
            end = time.monotonic() + 60 * minutes

            def keep_asking() -> None:
                nonlocal asked
                for number in count():
                    if time.monotonic() > end:
                        return
                    faults.extend(ask_by_openapi(server.url, number, ROUND // 5))
                    asked += 1

            def keep_sending() -> None:
                for number in count():
                    if time.monotonic() > end:
                        return
                    faults.extend(send_damaged(server, number, ROUND, statuses))

            threads = [threading.Thread(target=work) for work in (keep_asking, keep_sending)]
            for thread in threads:
                thread.start()
            begin = time.monotonic()
            print("seconds  memory (MiB)  processes  damaged files  faults", flush=True)
            while time.monotonic() < end:
                time.sleep(LOOK)
                memory, children = measure_memory(server)
                row = time.monotonic() - begin, memory, children, sum(statuses.values())
                print(
                    "{:7.0f}  {:12.0f}  {:9}  {:13}".format(*row), f" {len(faults):6}", flush=True
                )
                while (again := server.post(good, query="?heatmap=1"))[0] == 503:
                    time.sleep(0.2)
                if again != first:
                    faults.append("a good mammogram has another answer than at first")
            for thread in threads:
                thread.join()
            if server.process.poll() is not None:
                faults.append("the service has ended")
            print(f"answers to damaged files: {dict(sorted(statuses.items()))}")
            print(f"rounds of requests from the OpenAPI: {asked}")
            for line in server.get("/metrics")[1].decode().splitlines():
                if line.startswith("mammoflow_requests_total"):
                    print(line)
    for fault in faults[:20]:
        print(f"fault: {fault}")
    print(f"{len(faults)} faults")
    raise SystemExit(min(len(faults), 1))


if __name__ == "__main__":
    typer.run(main)
