"""The forms that names, paths and ids from outside must have before they are used.

Prefect's and MLflow's servers are other machines, and what they hold may have been written by
anybody who reaches them. A commit becomes an argument of git, a hash and a path become a file, a
run's id becomes part of an address. So each is compared with its form once, where it comes in.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError

from mammo.base.errors import UserError

T = TypeVar("T")

_LONGEST = 4096  # characters of a line, and of a path


def _relative(path: str) -> str:
    """A path that stays in its folder, written in one way only, and no option of a command."""
    parts = PurePosixPath(path).parts
    if path.startswith(("-", "/", "~")) or "\\" in path or not parts or ".." in parts:
        raise ValueError("is no path inside its folder")
    if str(PurePosixPath(path)) != path or not path.isprintable():
        raise ValueError("is no plain path")
    return path


def _readable(text: str) -> str:
    if escape_control_characters(text) != text:
        raise ValueError("has control characters")
    return text


Commit = Annotated[str, StringConstraints(pattern=r"\A(?:[0-9a-f]{40}|[0-9a-f]{64})\z")]
"""A commit by its full id."""

Md5 = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{32}(?:\.dir)?\z")]
"""What DVC calls a file or, with .dir, a folder."""

StageName = Annotated[str, StringConstraints(pattern=r"\A\w[^\s/\\]{0,255}\z")]
"""A stage of dvc.yaml, as an argument of DVC."""

RunId = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,255}\z")]
"""A run of MLflow."""

ModelName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z][A-Za-z0-9_-]{0,99}\z")]
"""A model of MLflow, and a folder of git's tags; `v3` would be a version, so it is none."""

RelativePath = Annotated[
    str, StringConstraints(min_length=1, max_length=_LONGEST), AfterValidator(_relative)
]
"""A path that is relative to a known folder, and stays in it."""

Readable = Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_readable)]
"""Words to be shown: nothing in them moves a terminal's cursor."""


def validate(form: Any, value: Any, what: str) -> str:
    """The value, if it has the form.

    Args:
        form: one of the forms of this module.
        value: as it came in.
        what: its name in the message, with its owner.

    Raises:
        UserError: if the value does not have the form.
    """
    try:
        found: str = TypeAdapter(form).validate_python(value, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{what} is {escape_control_characters(repr(value))[:200]}: {describe_faults(error)}"
        ) from None
    return found


def describe_faults(error: ValidationError) -> str:
    """What is wrong with a value, as half a sentence."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in error.errors()[:3]
    )


def parse_record(form: type[T], text: str, what: str, remedy: str) -> T:
    """A record that was kept as JSON.

    Args:
        form: a dataclass.
        text: as it came in.
        what: where it stands, and what it is not, if it is none.
        remedy: what to do then.

    Raises:
        UserError: if it is none.
    """
    try:
        return TypeAdapter(form).validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{what} ({describe_faults(error)}): somebody changed it; {remedy}"
        ) from None


def require_empty(folder: Path) -> None:
    """Make sure that a folder to be written is not there yet, or is empty.

    Raises:
        UserError: if it is not empty, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: there is something in it already; name a new folder")


def locate_inside(folder: Path, relative: Any, what: str) -> Path:
    """A file or folder inside another, links followed.

    Raises:
        UserError: if it is not inside.
    """
    path = folder / validate(RelativePath, relative, what)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{what} is {relative!r}, a link that leads out of its folder")
    return path


def escape_control_characters(text: str) -> str:
    """The text with control characters written as escapes; line ends and tabs stay."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text
    )
