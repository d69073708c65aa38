"""The names of the model and of its versions' git tags, and whether those are this registry's.

This module does not import MLflow, which takes longer than what is asked before a command.
"""

import os
import re
from pathlib import Path

from flows.processes.checked import ModelName, validate
from flows.processes.run_git import git, list_remotes, read_remote_refs
from flows.processes.words import hide_password
from mammo.base.errors import UserError

DEFAULT_MODEL = "mammogram-classifier"
"""The model's name where nobody has chosen another."""

MODEL = validate(ModelName, os.environ.get("MAMMOFLOW_MODEL") or DEFAULT_MODEL, "MAMMOFLOW_MODEL")

MOVE = "alias_move."
"""How the model's tags begin that record the moves of its aliases."""

_REFERENCE = re.compile(rf"(?:{re.escape(MODEL)}[@/])?@?(\w[\w-]*)")

_TAGS = "model" if MODEL == DEFAULT_MODEL else f"model/{MODEL}"
_PATIENCE = 10.0  # seconds for a remote of git


def parse_reference(reference: str) -> str:
    """The number or the alias in `3`, `champion` or `mammogram-classifier@champion`.

    Raises:
        UserError: if it is neither.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UserError(f"{reference!r} is no version: write a number or {MODEL}@champion")
    return match[1]


def name_tag(version: int) -> str:
    """The git tag of a model version."""
    return f"{_TAGS}/v{version}"


def require_own_tags(root: Path, highest: int, registry: str) -> None:
    """Make sure, before any work, that git's tags and the registry belong together.

    If the registry has no version yet, the tags of git's remotes are compared, too: a clone gets
    those only when it is made.

    Args:
        root: the clone.
        highest: the highest number that the registry ever gave to a version; 0 if it gave none.
        registry: its address, for the message.

    Raises:
        UserError: if git has tags of versions that the registry never had, with what to do.
    """
    strange = sorted(
        number for number in _list_tagged(root, elsewhere=not highest) if number > highest
    )
    if strange:
        named = name_tag(strange[0]) + (f" to v{strange[-1]}" if len(strange) > 1 else "")
        raise UserError(
            f"git has the tag {named}, and the registry {hide_password(registry)} has no such "
            f"version of {MODEL}: those were registered elsewhere. Use that registry "
            f"(MLFLOW_TRACKING_URI), or give your model a name of its own (`mammoflow --model NAME "
            f"...` or MAMMOFLOW_MODEL), or, if that registry is gone for good, delete the tags"
        )


def _list_tagged(root: Path, elsewhere: bool) -> set[int]:
    """Numbers of versions with a git tag, in this clone or also on the remotes that answer."""
    names = git(root, "for-each-ref", "--format=%(refname)", f"refs/tags/{_TAGS}/").split()
    for remote in list_remotes(root) if elsewhere else ():
        try:
            names += read_remote_refs(root, remote, f"refs/tags/{_TAGS}/v*", _PATIENCE)
        except UserError:
            continue  # publishing will say what is wrong with it
    found = (re.fullmatch(rf"refs/tags/{_TAGS}/v([1-9][0-9]{{0,8}})", name) for name in names)
    return {int(match[1]) for match in found if match}
