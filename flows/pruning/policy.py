"""What `mammoflow gc` may remove, and what it finds of each kind: number, size, how to remove it.

The policy is not in params.yaml, since that is part of every snapshot: with another number of days
the watch would see a new snapshot, and retrain.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class PruningPolicy:
    """What may be removed; what is needed stays, however old it is."""

    days: float = 30.0
    """Nothing younger is removed: who returns to last week's settings finds the results."""

    remote: bool = False
    """Whether to remove objects on DVC's default remote, too, which others may use."""

    @property
    def before(self) -> float:
        """Seconds since 1970: what was last changed earlier may be removed."""
        return time.time() - self.days * DAY


def _remove_nothing() -> None:
    """Do nothing: there is nothing to remove."""


@dataclass(frozen=True)
class Waste:
    """What is no longer needed, of one kind."""

    what: str
    count: int = 0
    size: int | None = None  # bytes; None if unknown
    remove: Callable[[], None] = _remove_nothing


@dataclass(frozen=True)
class Survey:
    """What is no longer needed, in the order of removal, and notes on what was left."""

    wastes: list[Waste] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: "Survey") -> "Survey":
        """Both: first what this one has found, then what the other one has."""
        return Survey([*self.wastes, *other.wastes], [*self.notes, *other.notes])
