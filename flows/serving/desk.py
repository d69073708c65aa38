"""Requests are answered by the model: processes read the files, one thread runs the networks.

Images that arrive within a few milliseconds are handed to that thread together. Each goes through
the networks alone: the size of a batch would change the last bits of an answer.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows.serving.load import LoadedModel, prepare_torch
from mammo.base.settings import Preprocess
from mammo.compute.worker_pool import Workers
from mammo.serving.exams import Heatmap, UnreadFile, find_in, refuse_copies
from mammo.serving.finding import ExamFinding, ImageFinding, group_exams
from mammo.serving.intake import Reading, Refusal, make_reader_pool, refuse_failure

GATHER = 0.003
"""Seconds that the first of several images waits for others."""

BATCH = 16
"""Images at most that are handed over together: the next ones wait until all are done."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    exams: list[ExamFinding]
    unread: list[UnreadFile]
    ours: bool  # a file is unread for a fault of this program


@dataclass(frozen=True)
class _WaitingImage:
    """An image that waits for the networks."""

    loaded: LoadedModel
    read: Reading | Refusal
    number: int
    heatmap: Heatmap
    answer: "asyncio.Future[ImageFinding | UnreadFile]"


class Desk:
    """Answers many requests at once with a loaded model, which can be replaced meanwhile."""

    def __init__(self, loaded: LoadedModel, workers: int):
        """Take a model, and a number of processes that read files."""
        self.loaded = loaded
        self._workers = workers

    async def __aenter__(self) -> "Desk":
        self._waiting: asyncio.Queue[_WaitingImage] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(self._workers, "reading")
        self._network = ThreadPoolExecutor(1, "networks")
        self._network.submit(prepare_torch, self.loaded)
        self._pool = make_reader_pool(self._workers).start()
        self._readers: Workers[tuple[Path, Preprocess], Reading | Refusal] = self._pool.__enter__()
        self._work = asyncio.create_task(self._hand_over())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._work.cancel()
        await asyncio.to_thread(self._pool.__exit__, None, None, None)
        self._threads.shutdown()
        self._network.shutdown()

    def replace(self, loaded: LoadedModel) -> None:
        """Answer the requests that come from now on with another model."""
        self._network.submit(prepare_torch, loaded)
        self.loaded = loaded

    async def answer(self, files: Sequence[Path], heatmap: Heatmap) -> Answer:
        """What the model finds in the files of one request, with the model of its arrival."""
        loaded = self.loaded
        asked = (self._ask(loaded, file, n, heatmap) for n, file in enumerate(files, start=1))
        results = await asyncio.gather(*asked)
        found = list(refuse_copies(one for one, _ in results))
        images = [one for one in found if isinstance(one, ImageFinding)]
        unread = [one for one in found if isinstance(one, UnreadFile)]
        predictor = loaded.predictor
        aggregate = predictor.params.evaluate.aggregate
        exams = group_exams(images, loaded.model, predictor.operating_point, aggregate)
        return Answer(exams, unread, any(ours for _, ours in results))

    async def _ask(
        self, loaded: LoadedModel, file: Path, number: int, heatmap: Heatmap
    ) -> tuple[ImageFinding | UnreadFile, bool]:
        loop = asyncio.get_running_loop()
        item = file, loaded.predictor.params.preprocess
        read = refuse_failure(await loop.run_in_executor(self._threads, self._readers.do, item))
        asked = _WaitingImage(loaded, read, number, heatmap, loop.create_future())
        self._waiting.put_nowait(asked)
        return await asked.answer, isinstance(read, Refusal) and read.ours

    async def _hand_over(self) -> None:
        """Hand over to the networks the images that wait, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(GATHER)
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            results = await loop.run_in_executor(self._network, _find_in_batch, batch)
            for asked, result in zip(batch, results, strict=True):
                if asked.answer.done():
                    continue  # the client has gone
                if isinstance(result, Exception):
                    asked.answer.set_exception(result)
                else:
                    asked.answer.set_result(result)


def _find_in_batch(batch: Sequence[_WaitingImage]) -> list[ImageFinding | UnreadFile | Exception]:
    results: list[ImageFinding | UnreadFile | Exception] = []
    for one in batch:
        try:
            found = find_in(one.loaded.predictor, one.read, one.number, None, one.heatmap)
            results.append(found)
        except Exception as error:  # noqa: BLE001  (it concerns one request, and no other one)
            results.append(error)
    return results
