"""A key that cannot be used is told before anything moves; what fails later undoes no move."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.documents.passages import FILE as PASSAGES
from flows.evidence.keys import FILE, find_private_folder
from flows.evidence.ledger import HEAD
from flows.promotion.flow import roll_back
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.registry import CHAMPION, PREVIOUS
from mammo.base.errors import UserError
from tests.support.signed_project import WHO
from tests.support.small_project import store


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, (arguments, result.output)
    assert result.output.count("\n") == 1
    return result.output


def test_a_typing_error_in_the_name_of_the_key_is_told_before_anything_moves(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases.make_champion(2, WHO, "better after all")
    before, moves = aliases.read_current(), len(aliases.read_history())
    monkeypatch.setenv(FILE, "/nowhere/typo.pem")
    for arguments in (
        ("rollback", "--reason", "recalls too many"),
        ("promote", "1", "--reason", "the old one was better"),
        ("promote", "1"),
        ("evidence", "sign", "2"),
        ("documents", "2"),
        ("audit", "2", "--quick"),
    ):
        assert f"{FILE}=/nowhere/typo.pem: there is no such file" in refused(*arguments)
    with pytest.raises(UserError, match="there is no such file"):
        roll_back(root, "recalls too many")  # as without a command before it
    assert (aliases.read_current(), len(aliases.read_history())) == (before, moves)


def test_a_key_that_others_may_read_moves_nothing(root: Path) -> None:
    before = aliases.read_current()
    (find_private_folder() / "anna.pem").chmod(0o644)
    assert "others may read this private key" in refused("promote", "2", "--reason", "better")
    assert aliases.read_current() == before


def test_what_hinders_the_signature_after_the_move_is_a_warning(root: Path) -> None:
    aliases.make_champion(2, WHO, "better after all")
    store(root).set_registered_model_tag(MODEL, HEAD, f"99 {'0' * 64}")
    result = CliRunner().invoke(app, ["rollback", "--reason", "recalls too many"])
    assert result.exit_code == 0, result.output
    assert "version 1 is champion again, in place of version 2" in result.stdout
    assert "warning: version 1 is champion, and this rollback could not be signed" in result.stderr
    assert "mend this before the next decision" in result.stderr
    assert aliases.read_current().get(CHAMPION) == 1
    assert PREVIOUS not in aliases.read_current()


def test_a_retrain_looks_at_key_and_passages_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (root / PASSAGES).parent.mkdir()
    (root / PASSAGES).write_text("no_such_key: text\n")
    assert "no passage has the key no_such_key" in refused("retrain")
    shutil.rmtree(root / PASSAGES.parent)
    monkeypatch.setenv(FILE, "/nowhere/typo.pem")
    assert "there is no such file" in refused("retrain")
