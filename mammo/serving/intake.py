"""Reading the files of exams: which ones there are, and each in a process that it may crash.

A worker process runs this module, so it imports nothing that imports torch.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammo.base.errors import UserError
from mammo.base.settings import Preprocess
from mammo.compute.worker_pool import Failure, WorkerPool
from mammo.dicom.errors import UnreadableDicom
from mammo.intake.examine import FAILURES, TOO_LARGE, make_reading_pool
from mammo.intake.prepare import Prepared, prepare
from mammo.serving.identity import Identity, list_directory, read_identity

_DIRECTORY = "DICOMDIR"
_SUFFIXES = {".dcm", ".dicom", ".ima"}


@dataclass(frozen=True)
class Reading:
    """A file that was read."""

    prepared: Prepared
    identity: Identity


@dataclass(frozen=True)
class Refusal:
    """Why there is no reading of a file; it quotes nothing of the file."""

    reason: str
    ours: bool = False  # a fault of this program, and not of the file


def read(source: Path | bytes, settings: Preprocess) -> Reading | Refusal:
    """Read a DICOM file, or the content of one."""
    try:
        return Reading(prepare(source, settings), read_identity(source))
    except UnreadableDicom as error:
        return Refusal(error.reason)
    except MemoryError:
        return Refusal(TOO_LARGE)
    except Exception as error:  # noqa: BLE001  (said by its kind alone: it may quote a header)
        return Refusal(
            f"a fault of this program ({type(error).__name__}), not of the file", ours=True
        )


def make_reader_pool(workers: int) -> WorkerPool[tuple[Path, Preprocess], Reading | Refusal]:
    """Processes that read files: one that crashes or hangs its process costs itself alone."""
    return make_reading_pool(_read_item, workers, __name__)


def _read_item(item: tuple[Path, Preprocess]) -> Reading | Refusal:
    return read(*item)


def refuse_failure(result: Reading | Refusal | Failure) -> Reading | Refusal:
    """The result of a worker; a file that crashed or hung one is refused."""
    return Refusal(FAILURES[result.how]) if isinstance(result, Failure) else result


@dataclass(frozen=True)
class Listing:
    """The files that paths stand for, each once, in order."""

    files: tuple[Path, ...]
    left_out: int  # files in the folders that are no DICOM files


def list_files(paths: Iterable[Path]) -> Listing:
    """Find the DICOM files that paths stand for: of files, of folders, or of a DICOMDIR.

    In a folder those count that are named like DICOM files, or begin like one, at any depth. A path
    that does not exist is a file as well if others do: whoever reads it will say so.

    Raises:
        UserError: no path exists, a folder cannot be listed, or a DICOMDIR is damaged or leads out
            of its folder.
    """
    found: dict[Path, Path] = {}
    left_out = 0
    named = list(paths)
    none = not any(map(_exists, named))
    for path in named:
        if none or "\0" in str(path):
            _require(path)
        if not _exists(path):
            files = [path]
        elif path.is_dir():
            inside = _list_folder(path)
            files = [file for file in inside if _is_dicom(file)]
            left_out += len(inside) - len(files)
        elif path.name.upper() == _DIRECTORY:
            files = _follow_directory(path)
        else:
            files = [path]
        for file in files:
            found.setdefault(_resolve(file), file)
    return Listing(tuple(found.values()), left_out)


def _exists(path: Path) -> bool:
    """As `Path.exists`, which raises at a name that is too long, and in a folder that is closed."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def _require(path: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise UserError(f"{path}: there is no such file or folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _list_folder(folder: Path) -> Sequence[Path]:
    """All files in it but hidden ones and a DICOMDIR, which has no image, sorted.

    A link that leads nowhere is one of them: whoever reads it will say so.
    """

    def refuse(error: OSError) -> None:  # `os.walk` and `Path.rglob` would leave the folder out
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    files = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(place, name) for name in names if not name.startswith("."))
        files += [path for path in visible if path.name.upper() != _DIRECTORY]
    return sorted(path for path in files if path.is_file() or not _exists(path))


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True  # whoever reads it will say what is wrong


def _follow_directory(path: Path) -> list[Path]:
    """The files that a DICOMDIR names; one that is not there is named later, as unreadable."""
    try:
        listed = list_directory(path)
    except UnreadableDicom as error:
        raise UserError(f"{path}: {error.reason}") from None
    folder = _resolve(path.parent)
    files = []
    for parts in listed:
        file = path.parent.joinpath(*parts)
        if not _resolve(file).is_relative_to(folder):
            raise UserError(f"{path}: it names a file outside its folder, which is not read")
        files.append(file)
    return files


def _resolve(path: Path) -> Path:
    """Where a path leads. `Path.resolve` raises at a link to itself, before Python 3.13."""
    return Path(os.path.realpath(path))
