"""Puts objects of DVC's cache on the default remote, and asks the remote for each of them.

    python -m flows.publishing.push_objects HASHES.json ANSWER.json  # DVC's hashes; a `PushResult`

`dvc push` and `dvc status --cloud` take all files of a folder for pushed if the remote has the
folder's list. A file that is missing there stays missing, without a message. They do not
distinguish a remote that lacks a file from one that does not answer, either.
"""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer

from flows.processes.dvc_remote import find_package_to_install
from flows.processes.words import advise_package, put_in_one_line
from mammo.base.atomic_files import write_json


@dataclass(frozen=True)
class PushResult:
    """Which objects did not arrive, by their hashes, and why."""

    lacking: list[str]  # neither the remote nor the cache has them
    refused: list[str]  # the remote did not accept them
    fault: str  # what went wrong, as a sentence; empty if nothing did


def push(root: Path, hashes: list[str]) -> PushResult:
    """Push what the remote lacks, then ask the remote again."""
    faults = _Faults()
    with Repo(str(root)) as repo:
        cache, remote = repo.cache.local, repo.cloud.get_remote_odb(None, "push")
        absent = set(hashes) - set(remote.oids_exist(hashes))
        cached = {md5 for md5 in absent if cache.exists(md5)}
        refused: set[str] = set()
        if cached:
            logging.getLogger(transfer.__module__).addHandler(faults)
            transfer(cache, remote, [HashInfo("md5", md5) for md5 in cached])
            refused = cached - set(remote.oids_exist(sorted(cached)))
    return PushResult(sorted(absent - cached), sorted(refused), faults.last if refused else "")


def describe_fault(error: BaseException) -> str:
    """Why a remote cannot be used. Each kind has its own library, with its own exceptions."""
    said = put_in_one_line(error)
    if isinstance(error, ImportError) and (package := find_package_to_install(said)):
        return advise_package(package)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _Faults(logging.Handler):
    """Keeps the reason why an object was not pushed: DVC writes it to its log only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.last = describe_fault(record.exc_info[1])


def main(hashes: Path, answer: Path) -> None:
    """Push, and write the answer to a file: libraries print to stdout, even as they end."""
    try:
        found = push(Path.cwd(), json.loads(hashes.read_text()))
    except Exception as error:  # noqa: BLE001  (each kind of remote raises its own)
        found = PushResult([], [], describe_fault(error))
    write_json(answer, asdict(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
