"""Where requests come in: so many at once, each with a folder for its files."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import Gauge
from starlette.exceptions import HTTPException


class Entrance:
    """The entrance of one service."""

    def __init__(self, limit: int, gauge: Gauge):
        """Let so many requests in at once, and show on a gauge how many there are."""
        self._limit = limit
        self._gauge = gauge
        self._inside = 0
        self._scratch = Path()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let requests in until the block ends; then nothing of their files is left."""
        with tempfile.TemporaryDirectory(prefix="mammoflow-serve-") as folder:
            self._scratch = Path(folder)
            yield

    def require_room(self) -> None:
        """Make sure that one more request may come in.

        Raises:
            HTTPException: 503 if not.
        """
        if self._inside >= self._limit:
            raise HTTPException(503, "too many requests wait already", {"Retry-After": "1"})

    @contextmanager
    def admit(self) -> Iterator[Path]:
        """Count a request until the block ends; yields the folder for its files, which goes then.

        To be called after `require_room`.
        """
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        self._count(1)
        try:
            yield folder
        finally:
            self._count(-1)
            with suppress(OSError):
                shutil.rmtree(folder)

    def _count(self, change: int) -> None:
        self._inside += change
        self._gauge.set(self._inside)
