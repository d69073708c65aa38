"""The aliases of the registered model, and their history: who moved which, when and why.

Each move is recorded as a tag of the registered model, under a name of its own, before the alias is
set. MLflow keeps each tag as a row, so two writers never overwrite each other's record. A move that
was made by hand in MLflow has no record; it shows as a difference between history and alias.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from flows.processes.checked import parse_record
from flows.processes.run_git import git
from flows.tracking import registry
from flows.tracking.names import MODEL, MOVE
from flows.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from mammo.base.errors import UserError

AUTOMATIC = "mammoflow"
"""Who moved an alias where no person did."""

LONGEST_REASON = 2000  # characters


@dataclass(frozen=True)
class Move:
    """One move of an alias, as it was recorded."""

    date: str  # ISO 8601, UTC
    alias: str
    version: int
    before: int | None  # the version that had the alias
    who: str  # a person by git's identity, or AUTOMATIC
    why: str
    kind: Literal["set", "taken away", "rolled back"] = "set"  # rolled back: from `before`
    weights: str = ""  # of `before`, if rolled back: their digest, which outlives the version


def read_current() -> dict[str, int]:
    """Each alias and the version that has it; empty if there is no model yet."""
    model = _find_model()
    return {name: int(version) for name, version in model.aliases.items()} if model else {}


def move(alias: str, version: int, who: str, why: str) -> Move:
    """Record a move of an alias to a version, and make it."""
    made = _record(alias, version, who, why, "set")
    _set(alias, version)
    return made


def _set(alias: str, version: int) -> None:
    client = MlflowClient()
    try:
        client.set_registered_model_alias(MODEL, alias, str(version))
    except MlflowException:
        # If two writers set an alias that no version had, the database accepts one row of the two.
        if alias not in read_current():
            raise
        client.set_registered_model_alias(MODEL, alias, str(version))


def remove(alias: str, who: str, why: str) -> None:
    """Record that an alias is removed, and remove it from the version that has it, if any."""
    version = read_current().get(alias)
    if version is not None:
        _record(alias, version, who, why, "taken away")
        MlflowClient().delete_registered_model_alias(MODEL, alias)


def _record(
    alias: str,
    version: int,
    who: str,
    why: str,
    kind: Literal["set", "taken away", "rolled back"],
    weights: str = "",
) -> Move:
    now = datetime.now(UTC)
    date, before = now.isoformat(timespec="seconds"), read_current().get(alias)
    made = Move(date, alias, version, before, who, why, kind, weights)
    # The name sorts by time; its end tells apart what happens in the same microsecond.
    name = f"{MOVE}{now:%Y%m%dT%H%M%S.%f}.{secrets.token_hex(4)}"
    MlflowClient().set_registered_model_tag(MODEL, name, json.dumps(asdict(made)))
    return made


def check_unmoved(version: int, champion: int | None) -> None:
    """Make sure, before a promotion, that the champion is the one that was compared with.

    MLflow cannot compare and set at once: a change between this and the move goes unnoticed.

    Raises:
        UserError: if somebody has moved the alias meanwhile, or deleted the version.
    """
    now = read_current().get(CHAMPION)
    if now != champion:
        raise UserError(
            f"{CHAMPION} was {_describe(champion)} when this was decided, and is {_describe(now)} "
            f"now: somebody moved the alias meanwhile; run `mammoflow promote {version}` again"
        )
    if registry.find(version) is None:
        raise UserError(f"{MODEL} version {version} was deleted in MLflow meanwhile")


def make_champion(version: int, who: str, why: str) -> None:
    """Make a version champion; the champion before it, if it still exists, becomes `previous`.

    The new champion is no longer challenger.
    """
    now = read_current()
    champion = now.get(CHAMPION)
    if champion == version:
        return
    if champion is not None and registry.find(champion) is not None:
        move(PREVIOUS, champion, who, f"gave way to version {version}")
    move(CHAMPION, version, who, why)
    if now.get(CHALLENGER) == version:
        remove(CHALLENGER, who, f"version {version} is {CHAMPION}")


def list_champions() -> set[int]:
    """The versions that are or have been champion, according to alias and history."""
    now = read_current()
    return {made.version for made in read_history() if made.alias == CHAMPION} | (
        {now[CHAMPION]} if CHAMPION in now else set()
    )


def list_rolled_back() -> dict[int, Move]:
    """The versions that people rolled back from, each with the move that did it.

    A version that became champion again since, by a promotion or by a rollback to it, is left out.
    """
    found: dict[int, Move] = {}
    for made in read_history():
        if made.alias != CHAMPION:
            continue
        found.pop(made.version, None)
        if made.kind == "rolled back" and made.before is not None:
            found[made.before] = made
    return found


def roll_back(who: str, why: str, digest_weights: Callable[[int], str]) -> tuple[int, int]:
    """Make the previous champion champion again.

    The version that was champion is recorded as rolled back. `previous` then names an earlier
    champion: another rollback returns to that one, and never to a version that was rolled back.

    Args:
        who: the person.
        why: the reason.
        digest_weights: gives the digest of a version's weights. The record has it, so that they are
            known after the version was deleted.

    Returns:
        The version that was champion, and the one that is champion now.

    Raises:
        UserError: if there is no champion to return to.
    """
    champion, previous = find_previous()
    _record(CHAMPION, previous, who, why, "rolled back", digest_weights(champion))
    _set(CHAMPION, previous)
    further = _find_champion_before(previous)
    if further is None:
        remove(PREVIOUS, who, f"no earlier champion than version {previous} is left")
    else:
        move(PREVIOUS, further, who, f"was champion before version {previous}")
    return champion, previous


def find_previous() -> tuple[int, int]:
    """The champion, and the version that a rollback returns to.

    Raises:
        UserError: if there is no champion to return to.
    """
    now = read_current()
    champion, previous = now.get(CHAMPION), now.get(PREVIOUS)
    if champion is None and previous is not None:
        raise UserError(
            f"{MODEL} has no champion to roll back from: make the one before it champion with "
            f'`mammoflow promote {previous} --reason "..."`'
        )
    if champion is not None and not _can_return_to(previous, champion):
        previous = _find_champion_before(champion)
    if champion is None or previous is None:
        raise UserError(
            f"{MODEL} has no `{PREVIOUS}` to return to: no version is left that was champion "
            f"before and was not rolled back; make one champion with `mammoflow promote N --reason "
            f'"..."`'
        )
    return champion, previous


def _can_return_to(previous: int | None, champion: int) -> bool:
    """Whether the alias `previous` names what a rollback may return to.

    It does not if it was deleted or set by hand in MLflow, or if an earlier rollback was cut short
    before it moved the alias on.
    """
    if previous is None or previous == champion or previous in list_rolled_back():
        return False
    return registry.find(previous) is not None


def _find_champion_before(version: int) -> int | None:
    """The last champion before a version that still exists and was not rolled back; or None."""
    bad, now = list_rolled_back(), version
    for made in reversed(read_history()):
        # A rollback returned to an earlier champion; how that became champion is an earlier move.
        if made.alias != CHAMPION or made.kind == "rolled back" or made.version != now:
            continue
        if made.before is None:
            return None
        now = made.before
        if now != version and now not in bad and registry.find(now) is not None:
            return now
    return None


def read_history() -> list[Move]:
    """Every recorded move, the oldest first.

    Raises:
        UserError: if a record was changed into something else.
    """
    model = _find_model()
    tags = sorted(model.tags.items()) if model else []
    return [_parse_move(name, text) for name, text in tags if name.startswith(MOVE)]


def _parse_move(tag: str, text: str) -> Move:
    what = f"the tag {tag} of {MODEL} in MLflow is no record of a move"
    return parse_record(Move, text, what, "restore the record, or delete the tag")


def find_unrecorded(moves: Sequence[Move], now: dict[str, int]) -> list[str]:
    """A sentence for each alias that is not where the last recorded move put it."""
    last = {made.alias: None if made.kind == "taken away" else made.version for made in moves}
    return [
        f"{alias} is {_describe(now.get(alias))}, but the history says "
        f"{_describe(last.get(alias))}: nobody recorded that move"
        for alias in sorted(last.keys() | now.keys())
        if last.get(alias) != now.get(alias)
    ]


def identify_person(root: Path) -> str:
    """Who decides: name and address as git knows them.

    Raises:
        UserError: if git knows none: a decision without a name is worth nothing later.
    """
    # Without useConfigOnly git would invent a name from the machine's.
    try:
        found = git(root, "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
    except UserError:
        raise UserError(
            "git does not know who you are, and the decision is recorded with your name: set it "
            "with `git config user.name` and `git config user.email`"
        ) from None
    return found.rsplit(" ", 2)[0]  # without the time


def check_reason(reason: str) -> str:
    """The reason as it is recorded.

    Raises:
        UserError: if it is empty, or too long for a record.
    """
    if not reason.strip():
        raise UserError("the reason is empty: say why, for the record")
    if len(reason) > LONGEST_REASON:
        raise UserError(
            f"the reason has {len(reason)} characters: at most {LONGEST_REASON} are allowed"
        )
    return reason.strip()


def _find_model() -> RegisteredModel | None:
    try:
        return MlflowClient().get_registered_model(MODEL)
    except MlflowException as error:
        if registry.is_absent(error):
            return None
        raise


def _describe(number: int | None) -> str:
    return "not set" if number is None else f"version {number}"
