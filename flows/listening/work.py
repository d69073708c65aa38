"""The node at work: one thread answers complete studies, one sends, and pynetdicom's receive.

They share the spool alone: what is to be done next is read from it, after a start as at any other
time.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows.listening.answer import Reader, answer
from flows.listening.deliver import SHORTEST, Pauses, Peer, UnreachableError, send
from flows.listening.journal import JOURNAL, Journal
from flows.listening.node import receive_images
from flows.listening.spool import RESULTS, STATES, Spool, open_spool
from flows.processes.words import Say
from mammo.base.errors import UserError
from mammo.dicom_results.write import Kind

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds after which the spool is read again."""

KEEP_FOR = 30 * 24 * 3600.0
"""Seconds for which the record of an answered study is kept."""

_RECEIVER = ""
"""In the pauses: the receiver as a whole."""


@dataclass(frozen=True)
class Settings:
    """The settings of the node."""

    spool: Path
    to: Peer
    host: str = "127.0.0.1"
    port: int = 11112
    title: str = "MAMMOFLOW"
    callers: Sequence[str] = ()  # AE titles that may call; if it is empty, all may
    quiet: float = 60.0  # seconds without a new image after which a study is complete
    disk: int = 20 * 2**30  # bytes that may lie in the spool
    kind: Kind = "cad"
    identified: bool = False  # UIDs in the journal, not hashes of them
    pause: float = SHORTEST  # seconds of the first pause after a failure to send


def work(reader: Reader, settings: Settings, say: Say) -> None:
    """Receive, examine and send until SIGINT or SIGTERM; to be called from the main thread.

    Raises:
        UserError: the spool or the address cannot be used.
    """
    journal = Journal(settings.spool / JOURNAL, settings.identified)
    over = threading.Event()
    with open_spool(settings.spool, settings.disk) as spool:
        _record_start(spool, reader, journal)
        before = {
            number: signal.signal(number, lambda *_: over.set())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            _work(reader, settings, spool, journal, over, say)
        finally:
            over.set()
            for number, handler in before.items():
                signal.signal(number, handler)
        journal.add("ended")


def _work(
    reader: Reader,
    settings: Settings,
    spool: Spool,
    journal: Journal,
    over: threading.Event,
    say: Say,
) -> None:
    with ThreadPoolExecutor(2, "listen") as threads:
        heard = receive_images(
            settings.host, settings.port, settings.title, settings.callers, spool, journal
        )
        try:
            with heard as port:
                jobs = [
                    threads.submit(
                        _repeat,
                        over,
                        lambda: answer_complete(reader, settings, spool, journal, over),
                    ),
                    threads.submit(_repeat, over, _make_sender(settings, spool, journal, over)),
                ]
                say(
                    f"{settings.title} listens at {settings.host}:{port} until Ctrl-C, and sends "
                    f"to {settings.to}"
                )
                while not over.wait(INTERVAL):
                    pass
        finally:
            over.set()
        for job in jobs:
            job.result()


def _repeat(over: threading.Event, job: Callable[[], object]) -> None:
    """Do a job again and again; its failure ends the node, unless the disk is at fault."""
    try:
        while not over.is_set():
            try:
                job()
            except OSError as error:
                log.error("the spool cannot be used at the moment (%s)", error.strerror)
                over.wait(SHORTEST)
            over.wait(INTERVAL)
    finally:
        over.set()


def answer_complete(
    reader: Reader, settings: Settings, spool: Spool, journal: Journal, over: threading.Event
) -> None:
    """Answer each study that is complete, and forget what is old."""
    for study in spool.list_studies("predicting"):  # a former process had begun them
        _answer(study, reader, settings, spool, journal, over)
    for study in spool.find_quiet(time.time(), settings.quiet):
        if over.is_set():
            return
        count = spool.complete(study)
        journal.add("complete", study=journal.name_study(study), images=count)
        _answer(study, reader, settings, spool, journal, over)
    for study in spool.forget(time.time() - KEEP_FOR):
        journal.add("forgotten", study=journal.name_study(study))


def _answer(
    study: str,
    reader: Reader,
    settings: Settings,
    spool: Spool,
    journal: Journal,
    over: threading.Event,
) -> None:
    try:
        answer(study, reader, settings.kind, spool, journal, over.is_set)
    except (OSError, UserError) as error:
        # Of the disk or of the machine: it is tried again, and the study stays where it is.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        journal.add("delayed", study=journal.name_study(study), reason=reason)
        over.wait(settings.pause)
    except Exception as error:  # noqa: BLE001  (one study must not stop the others)
        spool.set_aside(study)
        journal.add("failed", study=journal.name_study(study), reason=type(error).__name__)


def _make_sender(
    settings: Settings, spool: Spool, journal: Journal, over: threading.Event
) -> Callable[[], None]:
    pauses = Pauses(settings.pause)
    return lambda: send_waiting(settings, spool, journal, pauses, over)


def send_waiting(
    settings: Settings, spool: Spool, journal: Journal, pauses: Pauses, over: threading.Event
) -> None:
    """Send the results of each study, except where a pause is not over."""
    for study in spool.list_studies("sending"):
        now = time.monotonic()
        if over.is_set() or not pauses.is_due(_RECEIVER, now):
            return
        if not pauses.is_due(study, now):
            continue
        name = journal.name_study(study)
        files = sorted((spool.folder_of("sending", study) / RESULTS).rglob("*.dcm"))
        reasons = set()
        try:
            for file, reason in send(files, settings.title, settings.to) if files else ():
                if reason is None:
                    file.unlink()
                    journal.add("sent", study=name, result=file.stem)
                else:
                    reasons.add(reason)
        except UnreachableError as error:
            pause = pauses.lengthen(_RECEIVER, now)
            journal.add("not sent", study=name, reason=str(error), again_in=pause)
            return
        pauses.end(_RECEIVER)
        if reasons:
            pause = pauses.lengthen(study, now)
            told = "; ".join(sorted(reasons))
            journal.add("not sent", study=name, reason=told, again_in=pause)
            continue
        pauses.end(study)
        spool.finish(study)
        journal.add("answered", study=name)


def _record_start(spool: Spool, reader: Reader, journal: Journal) -> None:
    found = {state: len(spool.list_studies(state)) for state in STATES}
    model = reader.model
    journal.add("started", version=model.version, snapshot=model.snapshot, studies=found)
