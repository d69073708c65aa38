"""The results of a study are sent to another node by C-STORE, again and again if need be.

A result that the receiver has taken is removed from the spool. If the acknowledgement did not
arrive, the result is sent once more: the same object, byte for byte, with the same UID.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import uid
from pynetdicom.association import Association

from flows.listening.node import make_entity
from flows.processes.words import write_host
from mammo.base.errors import UserError

TIMEOUT = 30.0
"""Seconds that the receiver has for each of its answers."""

SHORTEST, LONGEST = 10.0, 3600.0
"""Seconds of the first pause after a failure, and of the longest: each is twice the one before."""

GAP = 0.05
"""Seconds between two objects of one association: its own thread is at rest by then."""

_WARNINGS = range(0xB000, 0xC000)
"""Statuses of an object that was stored, though not as it was sent (PS3.4 B.2.3)."""


@dataclass(frozen=True)
class Peer:
    """Another node."""

    host: str
    port: int
    title: str

    def __str__(self) -> str:
        return f"{write_host(self.host)}:{self.port}:{self.title}"


def parse_address(text: str) -> Peer:
    """Read HOST:PORT:AE; a host of IPv6 stands in brackets.

    Raises:
        UserError: it is not of that form.
    """
    host, _, rest = text[1:].partition("]:") if text.startswith("[") else text.partition(":")
    port, _, title = rest.partition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"{text}: name the node as HOST:PORT:AE, such as 10.0.0.5:104:PACS")
    make_entity(title)
    return Peer(host, int(port), title)


class UnreachableError(Exception):
    """The receiver takes nothing at the moment; the message says why."""


def send(files: Sequence[Path], title: str, to: Peer) -> Iterator[tuple[Path, str | None]]:
    """Send objects over one association.

    Args:
        files: of any storage class; uncompressed.
        title: our AE title.
        to: the node that gets them.

    Yields:
        Each file as soon as the receiver has answered: with None if it was stored, or why not.

    Raises:
        UnreachableError: there is no association.
    """
    headers = {file: pydicom.dcmread(file, specific_tags=["SOPClassUID"]) for file in files}
    node = make_entity(title)
    node.acse_timeout = node.dimse_timeout = node.network_timeout = TIMEOUT
    node.connection_timeout = TIMEOUT
    for sop_class in sorted({header.SOPClassUID for header in headers.values()}):
        node.add_requested_context(
            sop_class, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]
        )
    association = node.associate(to.host, to.port, ae_title=to.title)
    if not association.is_established:
        how = "rejects the association" if association.is_rejected else "does not answer"
        raise UnreachableError(f"{to} {how}")
    try:
        for file in files:
            yield file, _send_one(association, file)
    finally:
        if association.is_established:
            association.release()


def _send_one(association: Association, file: Path) -> str | None:
    # Without a gap, pynetdicom's own thread may take the answer.
    time.sleep(GAP)
    try:
        answer = association.send_c_store(pydicom.dcmread(file))
    except (ValueError, RuntimeError):  # pynetdicom's, where no context or no connection is left
        return "the receiver does not take its class, or has closed the connection"
    status = answer.get("Status")
    if status == 0 or status in _WARNINGS:
        return None
    return "the receiver did not answer" if status is None else f"status 0x{status:04X}"


class Pauses:
    """When to try again what has failed."""

    def __init__(self, shortest: float = SHORTEST) -> None:
        """Begin without a pause."""
        self._shortest = shortest
        self._until: dict[str, tuple[float, float]] = {}  # when, and the pause that ends then

    def is_due(self, what: str, now: float) -> bool:
        """Whether there is no pause for it, or its pause is over."""
        return now >= self._until.get(what, (now, 0.0))[0]

    def lengthen(self, what: str, now: float) -> float:
        """Note that it has failed; return the seconds until it is tried again."""
        last = self._until.get(what, (0.0, self._shortest / 2))[1]
        pause = min(2 * last, LONGEST)
        self._until[what] = now + pause, pause
        return pause

    def end(self, what: str) -> None:
        """Note that it has succeeded."""
        self._until.pop(what, None)
