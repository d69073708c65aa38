"""What several commands use: errors as one sentence, lines as text, checks."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from flows.processes.checked import escape_control_characters, require_empty
from mammo.base.errors import UserError


@contextmanager
def one_sentence(status: int = 1) -> Iterator[None]:
    """Print an error that the user can mend as one sentence, without a traceback, and exit."""
    try:
        yield
    except UserError as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(status) from None
    except Exception as error:
        # Not for every command: it imports MLflow, which takes seconds.
        from flows.tracking import registry

        if not isinstance(error, registry.EXPECTED):
            raise
        say(f"error: {registry.describe_error(error)}", err=True)
        raise typer.Exit(status) from None


def say(line: str, err: bool = False) -> None:
    """Print a line that may hold text from elsewhere: its control characters are spelled out."""
    typer.echo(escape_control_characters(line), err=err)


def unwind_at_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that what was begun is undone."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, unwind)


def check_writable(folder: Path) -> None:
    """Make sure, before any work, that files can be written into a folder; nothing is created.

    Raises:
        UserError: if not.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: no file can be written there: name another folder")


def check_new(folder: Path) -> None:
    """Make sure, before any work, that a folder can be made; nothing is created.

    Raises:
        UserError: if it is there already, or cannot be made.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already: name a new folder")
    check_writable(folder)


def check_empty(folder: Path) -> None:
    """Make sure, before any work, that a folder can be made, or is there and empty.

    Raises:
        UserError: if it is not empty, or cannot be written.
    """
    require_empty(folder)
    check_writable(folder)


def check_readable(folder: Path) -> None:
    """Make sure, before any work, that there is a folder to read.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{folder}: it cannot be read: check its permissions")


def check_keys(root: Path, *roles: str) -> None:
    """Make sure, before any work, that the private key can be used which would sign.

    A passphrase is asked for here, while a person is there to type it.

    Args:
        root: the clone.
        roles: the first one for which there is a key counts.

    Raises:
        UserError: if it cannot be used; that there is none is no fault.
    """
    if not (root / "keys").is_dir():
        return  # nothing is signed: what follows imports a library of signatures
    from flows.evidence.keys import find_owner

    find_owner(root, *roles)


def remove_traceback(record: logging.LogRecord) -> bool:
    """A filter of logs: a stage's failure has its last lines, and a traceback adds nothing."""
    record.exc_info = None
    return True


def require_result(state: Any) -> Any:
    """What a flow returned, given its final state; a failure is printed, and exits with 1."""
    if not state.is_completed():
        say(f"error: {state.message}", err=True)
        raise typer.Exit(1)
    return state.result()
