"""Puts objects of DVC's cache on the default remote, and asks there for each of them.

    python -m flows.publishing.push_objects HASHES.json ANSWER.json  # DVC's hashes; an `Answer`

`dvc push` and `dvc status --cloud` take the files of a folder for pushed where the remote has the
folder's list: what was lost there stays lost, and nobody hears of it. Nor do they tell a remote
that lacks a file from one that cannot be asked.
"""

import json
import logging
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer

from mammo.base.atomic_files import write_json

_PACKAGE = re.compile(r"requires '(dvc-[a-z]+[0-9]*)' to be installed")


@dataclass(frozen=True)
class Answer:
    """What became of objects: those that neither the remote nor the cache has, those that the
    remote did not take, and what went wrong, in words."""

    lacking: list[str]
    refused: list[str]
    fault: str


def push(root: Path, hashes: list[str]) -> Answer:
    """Push what the remote lacks, and ask it again."""
    faults = _Faults()
    with Repo(str(root)) as repo:
        cache, remote = repo.cache.local, repo.cloud.get_remote_odb(None, "push")
        absent = set(hashes) - set(remote.oids_exist(hashes))
        here = {md5 for md5 in absent if cache.exists(md5)}
        refused: set[str] = set()
        if here:
            logging.getLogger(transfer.__module__).addHandler(faults)
            transfer(cache, remote, [HashInfo("md5", md5) for md5 in here])
            refused = here - set(remote.oids_exist(sorted(here)))
    return Answer(sorted(absent - here), sorted(refused), faults.last if refused else "")


def in_words(error: BaseException) -> str:
    """Why a remote cannot be used: each kind has a library of its own, with its own exceptions."""
    said = " ".join(str(error).split())
    if isinstance(error, ImportError) and (package := _PACKAGE.search(said)):
        # Not DVC's advice, `pip install 'dvc[s3]'`: it would exchange what the lock pins.
        return (
            f"it takes the package {package[1]}: run `uv pip install --constraint "
            f"requirements.lock {package[1]}`"
        )
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _Faults(logging.Handler):
    """Hears why an object did not go: DVC says so only to its log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.last = in_words(record.exc_info[1])


def main(hashes: Path, answer: Path) -> None:
    """Push, and write the answer: libraries print to stdout what they like, even as they end."""
    try:
        found = push(Path.cwd(), json.loads(hashes.read_text()))
    except Exception as error:
        found = Answer([], [], in_words(error))
    write_json(answer, asdict(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
