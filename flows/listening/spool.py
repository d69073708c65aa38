"""Where studies lie while they are worked on: a study's state is the folder that it is in.

    SPOOL/incoming/                              unfinished; emptied at each start
    SPOOL/collecting/STUDY/INSTANCE.dcm          images, until the study has been quiet for a while
    SPOOL/predicting/STUDY/INSTANCE.dcm          a complete study, which the model looks at
    SPOOL/sending/STUDY/                         record.json, headers/, results/: what is to be sent
    SPOOL/answered/STUDY/                        record.json, headers/: what a later image needs
    SPOOL/failed/STUDY/INSTANCE.dcm              a study at which the program failed

Each step is one rename, made when all that it needs is on the disk. Whatever kills the process, the
next start finds each study before a step or after it.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from flows.listening.journal import JOURNAL
from flows.listening.record import FILE, read_record
from flows.processes.folder_lock import hold_lock
from mammo.base.errors import UserError

State = Literal["collecting", "predicting", "sending", "answered", "failed"]

STATES: tuple[State, ...] = ("collecting", "predicting", "sending", "answered", "failed")
RESULTS, HEADERS = "results", "headers"
"""Folders of a study whose results are to be sent."""

_INCOMING = "incoming"


class SpoolFullError(Exception):
    """There is no room for an image."""


class Spool:
    """The folder of one process. Several threads may use it."""

    def __init__(self, folder: Path, limit: int):
        """Take a folder that exists and is locked, and the most bytes that may lie in it."""
        self.folder = folder
        self.limit = limit
        self._opened = time.time()
        self._lock = threading.Lock()
        self._used = 0

    def folder_of(self, state: State, study: str) -> Path:
        """The folder of a study in a state, whether or not it is there."""
        return self.folder / state / study

    def list_studies(self, state: State) -> list[str]:
        """The studies in a state, those that came to it first in front."""
        with suppress(FileNotFoundError):
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in self._list(state)]
            return [name for _, name in sorted(found)]
        return []

    def take(self, study: str, instance: str, content: bytes) -> bool:
        """Write an image to the disk; when this returns, the image outlives a loss of power.

        Args:
            study: its StudyInstanceUID, checked by `mammo.dicom.values.is_uid`.
            instance: its SOPInstanceUID, checked as well.
            content: a DICOM file.

        Returns:
            False if it was there before, or was looked at: it is taken once.

        Raises:
            SpoolFullError: there is no room for it.
        """
        with self._lock:
            if self._has_taken(study, instance):
                return False
            if self._used + len(content) > self.limit:
                raise SpoolFullError
            self._used += len(content)
        try:
            partial = self._write(content)
        except OSError as error:
            with self._lock:
                self._used -= len(content)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFullError from None
            raise
        with self._lock:
            folder = self.folder_of("collecting", study)
            folder.mkdir(exist_ok=True)
            partial.replace(folder / f"{instance}.dcm")
            sync(folder)
            sync(folder.parent)
        return True

    def find_quiet(self, now: float, seconds: float) -> list[str]:
        """The studies to which nothing came for so long, and of which no results are to be sent.

        Time before the start does not count: senders could not send then.
        """
        busy = {*self.list_studies("sending"), *self.list_studies("predicting")}
        arrivals = {
            study: find_last_arrival(self.folder_of("collecting", study))
            for study in self.list_studies("collecting")
        }
        return [
            study
            for study, last in arrivals.items()
            if study not in busy and abs(now - max(self._opened, last)) >= seconds
        ]

    def complete(self, study: str) -> int:
        """End the collecting of a study: images that come from now on are answered later.

        Returns:
            The number of its images.
        """
        target = self.folder_of("predicting", study)
        with self._lock:
            self.folder_of("collecting", study).rename(target)
        return len(list_images(target))

    @contextmanager
    def build_results(self) -> Iterator[Path]:
        """A folder to build results in; what is left of it at the end is removed."""
        folder = Path(tempfile.mkdtemp(dir=self.folder / _INCOMING))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, study: str, built: Path) -> None:
        """Put the results of a study where they are sent from, and remove its images."""
        for path in sorted(built.rglob("*")):
            sync(path)
        sync(built)
        with self._lock:
            built.rename(self.folder_of("sending", study))
            sync(self.folder / "sending")
            self._remove_replaced(study)
        self.measure()

    def finish(self, study: str) -> None:
        """Keep of a study whose results were sent only what a later image needs."""
        source = self.folder_of("sending", study)
        shutil.rmtree(source / RESULTS, ignore_errors=True)
        os.utime(source)
        with self._lock:
            source.rename(self.folder_of("answered", study))
        self.measure()

    def drop(self, study: str) -> None:
        """Remove the images of a complete study that has nothing new."""
        shutil.rmtree(self.folder_of("predicting", study))
        self.measure()

    def set_aside(self, study: str) -> None:
        """Put aside a study at which the program failed, so that it does not fail for ever."""
        source, target = self.folder_of("predicting", study), self.folder_of("failed", study)
        with self._lock:
            if not target.exists():
                source.rename(target)
                return
            for image in list_images(source):
                image.replace(target / image.name)
            source.rmdir()

    def forget(self, before: float) -> list[str]:
        """Remove what is kept of studies that were answered before a time; their UIDs."""
        old = [entry.name for entry in self._list("answered") if entry.stat().st_mtime < before]
        for study in old:
            with self._lock:
                shutil.rmtree(self.folder_of("answered", study))
        if old:
            self.measure()
        return old

    def measure(self) -> int:
        """Count anew the bytes of the spool."""
        with self._lock:
            self._used = sum(_measure_size(path) for path in self.folder.rglob("*"))
            return self._used

    def recover(self) -> None:
        """End what a killed process had begun; to be called before another thread is at work."""
        shutil.rmtree(self.folder / _INCOMING, ignore_errors=True)
        for name in (_INCOMING, *STATES):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        for study in self.list_studies("sending"):
            self._remove_replaced(study)
        self.measure()

    def _remove_replaced(self, study: str) -> None:
        """Remove what the results of a study have replaced."""
        shutil.rmtree(self.folder_of("predicting", study), ignore_errors=True)
        shutil.rmtree(self.folder_of("answered", study), ignore_errors=True)

    def _has_taken(self, study: str, instance: str) -> bool:
        holders: tuple[State, ...] = ("collecting", "predicting", "failed")
        if any((self.folder_of(state, study) / f"{instance}.dcm").exists() for state in holders):
            return True
        records = (
            self.folder_of("sending", study) / FILE,
            self.folder_of("answered", study) / FILE,
        )
        return any(read_record(file).has_read(instance) for file in records)

    def _write(self, content: bytes) -> Path:
        """Write a file among the unfinished, to the disk itself."""
        handle, name = tempfile.mkstemp(dir=self.folder / _INCOMING)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)

    def _list(self, state: State) -> list[Path]:
        return list((self.folder / state).iterdir())


@contextmanager
def open_spool(folder: Path, limit: int) -> Iterator[Spool]:
    """A spool folder, made if need be, that no other process uses until the block ends.

    Args:
        folder: its path; only its owner may look into it.
        limit: the most bytes that may lie in it.

    Raises:
        UserError: it cannot be made, or another process uses it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        strange = {path.name for path in folder.iterdir()} - {*STATES, _INCOMING, JOURNAL}
        if strange and not (folder / _INCOMING).is_dir():
            raise UserError(f"{folder}: it holds other things: name an empty or a new folder")
        with hold_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            spool = Spool(folder, limit)
            spool.recover()
            yield spool
    except BlockingIOError:
        raise UserError(
            f"{folder}: another mammoflow listen uses it: end that one, or name another folder"
        ) from None


def list_images(folder: Path) -> list[Path]:
    """The images of a study, sorted by their names."""
    return sorted(folder.glob("*.dcm"))


def find_last_arrival(folder: Path) -> float:
    """When the last image came into a folder, in seconds since 1970; 0 if none did."""
    return max((path.stat().st_mtime for path in list_images(folder)), default=0.0)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _measure_size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
