"""What `mammoflow gc` goes by, and what it finds: how many of a kind, how large, how to remove it.

The policy stands here and not in params.yaml: that is part of every snapshot, so another number of
days would be another model to the watch, and retrained.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Policy:
    """What may go; what is needed stays, however old it is."""

    days: float = 30.0
    """Younger than this nothing goes: who returns to last week's settings finds its results."""

    remote: bool = False
    """Whether objects on DVC's default remote go, where others may have put theirs."""

    @property
    def before(self) -> float:
        """Seconds since 1970: what was last changed before may go."""
        return time.time() - self.days * DAY


def _nothing() -> None:
    """There is nothing to remove."""


@dataclass(frozen=True)
class Waste:
    """What is no longer needed, of one kind."""

    what: str
    count: int = 0
    size: int | None = None  # bytes; None where nobody can tell
    remove: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Found:
    """What is no longer needed, in the order in which it is to go, and what could not be told."""

    wastes: list[Waste] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: "Found") -> "Found":
        return Found([*self.wastes, *other.wastes], [*self.notes, *other.notes])
