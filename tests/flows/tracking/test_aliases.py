"""Aliases move, and every move is on record: who, when, why."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from mammo.base.errors import UserError
from tests.support.small_project import store


@pytest.fixture
def three_versions(empty_registry: Path) -> Iterator[Path]:
    """A model with three versions and no alias."""
    client = store(empty_registry)
    client.create_registered_model(MODEL)
    for _ in range(3):
        client.create_model_version(MODEL, source=str(empty_registry))
    yield empty_registry
    client.delete_registered_model(MODEL)


def test_without_a_model_there_is_no_alias_and_no_history(empty_registry: Path) -> None:
    assert aliases.read_current() == {}
    assert aliases.read_history() == []
    with pytest.raises(UserError, match="no version is left that was champion before"):
        aliases.roll_back("Ann", "why", str)


def test_the_old_champion_stays_as_previous_and_returns(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    assert aliases.read_current() == {CHAMPION: 1}
    aliases.make_champion(2, "Ann", "better")
    aliases.make_champion(3, "Ann", "better still")
    assert aliases.read_current() == {CHAMPION: 3, PREVIOUS: 2}
    assert aliases.roll_back("Bob", "it was not", str) == (3, 2)
    assert aliases.read_current() == {CHAMPION: 2, PREVIOUS: 1}


def test_a_second_rollback_goes_on_to_the_one_before_and_never_back_to_a_bad_one(
    three_versions: Path,
) -> None:
    for version in (1, 2, 3):
        aliases.make_champion(version, "Ann", "better")
    assert aliases.roll_back("Bob", "recalls too many", str) == (3, 2)
    assert aliases.roll_back("Bob", "this one, too", str) == (2, 1)
    assert aliases.read_current() == {CHAMPION: 1}
    assert {number: made.why for number, made in aliases.list_rolled_back().items()} == {
        3: "recalls too many",
        2: "this one, too",
    }
    assert [made.weights for made in aliases.list_rolled_back().values()] == ["3", "2"]
    with pytest.raises(UserError, match="no `previous` to return to"):
        aliases.roll_back("Bob", "why", str)
    assert aliases.find_unrecorded(aliases.read_history(), aliases.read_current()) == []
    # A person may think better of it; from then on it is a champion like any other.
    aliases.make_champion(3, "Ann", "it was the viewer")
    assert aliases.read_current() == {CHAMPION: 3, PREVIOUS: 1}
    assert set(aliases.list_rolled_back()) == {2}
    assert aliases.roll_back("Bob", "no, it was not", str) == (3, 1)


def test_after_a_rollback_and_a_new_champion_the_way_back_passes_the_bad_one_by(
    three_versions: Path,
) -> None:
    store(three_versions).create_model_version(MODEL, source=str(three_versions))
    for version in (1, 2, 3):
        aliases.make_champion(version, "Ann", "better")
    aliases.roll_back("Bob", "recalls too many", str)
    aliases.make_champion(4, "Ann", "better")
    assert aliases.read_current() == {CHAMPION: 4, PREVIOUS: 2}
    assert aliases.roll_back("Bob", "so does this", str) == (4, 2)
    assert aliases.read_current() == {CHAMPION: 2, PREVIOUS: 1}
    # Set by hand, the alias is not taken at its word either.
    store(three_versions).set_registered_model_alias(MODEL, PREVIOUS, "3")
    assert aliases.roll_back("Bob", "nor this", str) == (2, 1)


def test_who_is_champion_is_challenger_no_longer_and_that_is_on_record(
    three_versions: Path,
) -> None:
    aliases.make_champion(1, "Ann", "the first")
    aliases.move(CHALLENGER, 2, aliases.AUTOMATIC, "registered")
    aliases.make_champion(2, "Ann", "better")
    assert aliases.read_current() == {CHAMPION: 2, PREVIOUS: 1}
    assert (aliases.read_history()[-1].alias, aliases.read_history()[-1].kind) == (
        CHALLENGER,
        "taken away",
    )
    assert aliases.find_unrecorded(aliases.read_history(), aliases.read_current()) == []
    aliases.move(CHALLENGER, 3, aliases.AUTOMATIC, "registered")
    aliases.make_champion(1, "Ann", "the old one is better")
    assert aliases.read_current()[CHALLENGER] == 3


def test_a_record_of_an_earlier_mammoflow_is_read(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    [(name, text)] = store(three_versions).get_registered_model(MODEL).tags.items()
    old = {key: value for key, value in json.loads(text).items() if key != "kind"}
    store(three_versions).set_registered_model_tag(MODEL, name, json.dumps(old))
    assert [made.kind for made in aliases.read_history()] == ["set"]


def test_the_history_tells_every_move_in_order(three_versions: Path) -> None:
    aliases.move(CHALLENGER, 2, aliases.AUTOMATIC, "registered")
    aliases.make_champion(1, "Ann", "the first")
    aliases.make_champion(2, "Ann <ann@hospital>", 'better: "auROC" 0.81 > 0.80')
    moves = aliases.read_history()
    assert [(m.alias, m.version, m.before) for m in moves] == [
        (CHALLENGER, 2, None),
        (CHAMPION, 1, None),
        (PREVIOUS, 1, None),
        (CHAMPION, 2, 1),
        (CHALLENGER, 2, 2),
    ]
    assert (moves[3].who, moves[3].why) == (
        "Ann <ann@hospital>",
        'better: "auROC" 0.81 > 0.80',
    )
    assert moves[2].why == "gave way to version 2"
    assert aliases.find_unrecorded(moves, aliases.read_current()) == []


def test_two_writers_lose_no_move(three_versions: Path) -> None:
    def write(who: str) -> None:
        for number in range(10):
            aliases.move(CHALLENGER, 1 + number % 3, who, f"{who} {number}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, ["Ann", "Bob"]))
    said = sorted(move.why for move in aliases.read_history())
    assert said == sorted(f"{who} {number}" for who in ("Ann", "Bob") for number in range(10))


def test_a_move_made_by_hand_shows(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    client = store(three_versions)
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    client.set_registered_model_alias(MODEL, "nightly", "2")
    assert aliases.find_unrecorded(aliases.read_history(), aliases.read_current()) == [
        "champion is version 3, but the history says version 1: nobody recorded that move",
        "nightly is version 2, but the history says not set: nobody recorded that move",
    ]


def test_a_version_that_is_gone_takes_its_alias_along_and_leaves_its_history(
    three_versions: Path,
) -> None:
    aliases.make_champion(1, "Ann", "the first")
    aliases.make_champion(2, "Ann", "better")
    store(three_versions).delete_model_version(MODEL, "1")
    assert aliases.read_current() == {CHAMPION: 2}
    assert len(aliases.read_history()) == 3
    with pytest.raises(UserError, match="no `previous` to return to"):
        aliases.roll_back("Bob", "why", str)


def dangle(root: Path, alias: str, version: int) -> None:
    """Let an alias name a version that was deleted, as another store of MLflow's may."""
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        database.execute(
            "INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, ?, ?)",
            (MODEL, alias, version),
        )
        database.commit()


def test_an_alias_of_a_deleted_version_stands_in_nobodys_way(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    store(three_versions).delete_model_version(MODEL, "1")
    dangle(three_versions, CHAMPION, 1)
    aliases.make_champion(2, "Ann", "the first one is gone")
    assert aliases.read_current() == {CHAMPION: 2}
    dangle(three_versions, PREVIOUS, 1)
    with pytest.raises(UserError, match="no version is left that was champion before"):
        aliases.roll_back("Bob", "why", str)
    assert aliases.read_current()[CHAMPION] == 2
    assert [move.version for move in aliases.read_history()] == [1, 2]


def test_a_rollback_that_was_cut_short_can_be_followed_by_another(three_versions: Path) -> None:
    for version in (1, 2, 3):
        aliases.make_champion(version, "Ann", "better")
    aliases.roll_back("Bob", "recalls too many", str)
    # As if it had ended between the move of the champion and that of `previous`.
    store(three_versions).set_registered_model_alias(MODEL, PREVIOUS, "2")
    assert aliases.read_current() == {CHAMPION: 2, PREVIOUS: 2}
    assert aliases.roll_back("Bob", "so does this", str) == (2, 1)
    assert aliases.read_current() == {CHAMPION: 1}


def test_where_previous_was_deleted_a_rollback_goes_to_the_champion_before_that(
    three_versions: Path,
) -> None:
    for version in (1, 2, 3):
        aliases.make_champion(version, "Ann", "better")
    store(three_versions).delete_model_version(MODEL, "2")
    assert aliases.read_current() == {CHAMPION: 3}
    assert aliases.roll_back("Bob", "recalls too many", str) == (3, 1)
    assert aliases.read_current() == {CHAMPION: 1}


def test_without_a_champion_there_is_nothing_to_roll_back_from(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    aliases.make_champion(2, "Ann", "better")
    store(three_versions).delete_registered_model_alias(MODEL, CHAMPION)
    with pytest.raises(UserError, match="mammoflow promote 1 --reason"):
        aliases.roll_back("Bob", "why", str)


def test_a_move_by_hand_between_decision_and_promotion_is_noticed(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    aliases.check_unmoved(2, 1)
    store(three_versions).set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(UserError, match="was version 1 when this was decided, and is version 3"):
        aliases.check_unmoved(2, 1)
    store(three_versions).delete_registered_model_alias(MODEL, CHAMPION)
    with pytest.raises(UserError, match="is not set now"):
        aliases.check_unmoved(2, 1)
    store(three_versions).delete_model_version(MODEL, "2")
    with pytest.raises(UserError, match="version 2 was deleted in MLflow meanwhile"):
        aliases.check_unmoved(2, None)


def test_a_person_is_known_by_git_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", "/dev/null")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(UserError, match=r"git config user\.name"):
        aliases.identify_person(tmp_path)
    for key, value in (("name", "Ann Example"), ("email", "ann@hospital")):
        subprocess.run(["git", "config", f"user.{key}", value], cwd=tmp_path, check=True)
    assert aliases.identify_person(tmp_path) == "Ann Example <ann@hospital>"


def test_a_record_that_is_none_is_named(three_versions: Path) -> None:
    aliases.make_champion(1, "Ann", "the first")
    client = store(three_versions)
    for text in ("", "{", '{"alias": "champion"}', "[1]", "null"):
        client.set_registered_model_tag(MODEL, "alias_move.forged", text)
        with pytest.raises(UserError, match=r"the tag alias_move\.forged of .* no record of"):
            aliases.read_history()


def test_a_record_moves_no_cursor_and_is_no_markup(
    three_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three_versions)
    aliases.make_champion(1, "Ann", "\x1b[2J[bold red]all is well[/]")
    listed = CliRunner().invoke(app, ["aliases"]).output
    assert "\x1b[2J" not in listed
    assert "\\x1b[2J[bold" in "".join(listed.split(" "))


def test_a_reason_says_something_and_not_too_much() -> None:
    assert aliases.check_reason(" fewer recalls \n") == "fewer recalls"
    with pytest.raises(UserError, match="the reason is empty"):
        aliases.check_reason("  ")
    with pytest.raises(UserError, match="2001 characters"):
        aliases.check_reason("x" * 2001)
