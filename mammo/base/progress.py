"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def say(message: str) -> None:
    """Print one line at once: stage logs are followed live, so nothing may wait in a buffer."""
    print(message, flush=True)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items`; show a bar on a terminal, else a line at every tenth of `total`."""
    console = Console(file=sys.stderr)
    if console.is_terminal:
        yield from rich_track(items, description=description, total=total, console=console)
        return
    shown = 0
    for count, item in enumerate(items, start=1):
        yield item
        tenth = 10 * count // max(total, 1)
        if tenth > shown:
            shown = tenth
            say(f"{description}: {count}/{total}")
