"""Keys: who may read them, what is written where, and which one signs."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.evidence.keys import FILE, FOLDER, PASSPHRASE, find_owner, make_key, withdraw_key
from flows.evidence.verify import read_key
from flows.processes.run_git import git
from mammo.base.errors import UserError


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone without a key."""
    root = tmp_path / "clone"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text("")
    git(root, "init", "-q")
    git(root, "-c", "user.name=T", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-mx")
    monkeypatch.chdir(root)
    return root


def test_a_key_is_made_by_the_command_outside_the_clone_and_only_for_its_owner(
    clone: Path, tmp_path: Path
) -> None:
    made = CliRunner().invoke(app, ["keys", "new", "server", "--role", "builder"])
    assert made.exit_code == 0, made.output
    private = tmp_path / "private" / "server.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = read_key(clone / "keys" / "server.json")
    assert (key.name, key.role, key.withdrawn) == ("server", "builder", None)
    assert key.keyid in made.output
    assert [path.name for path in (clone / "keys").iterdir()] == ["server.json"]
    owner = find_owner(clone, "builder")
    assert owner is not None
    assert owner.key == key
    listed = CliRunner().invoke(app, ["keys", "list"])
    assert listed.output == f"server  builder  {key.keyid}\n"


def test_a_private_key_in_the_clone_is_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(clone / "secret"))
    with pytest.raises(UserError, match="name a folder outside of it"):
        make_key(clone, "server", "builder", None)
    assert not (clone / "secret").exists()
    assert not (clone / "keys").exists()


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [("../x", "builder", "no name of a key"), ("x", "admin", "is no role: choose one of builder")],
)
def test_a_name_or_a_role_that_is_none_is_refused(
    clone: Path, name: str, role: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make_key(clone, name, role, None)


def test_a_key_is_never_written_over_another(clone: Path, tmp_path: Path) -> None:
    make_key(clone, "server", "builder", None)
    before = (tmp_path / "private" / "server.pem").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        make_key(clone, "server", "auditor", None)
    assert (tmp_path / "private" / "server.pem").read_bytes() == before


def test_without_a_key_of_the_role_nobody_signs(clone: Path, tmp_path: Path) -> None:
    assert find_owner(clone, "builder") is None
    make_key(clone, "server", "builder", None)
    assert find_owner(clone, "auditor") is None
    (tmp_path / "private" / "server.pem").unlink()
    assert find_owner(clone, "builder") is None


def test_a_key_whose_public_half_is_not_in_the_clone_does_not_sign(clone: Path) -> None:
    make_key(clone, "server", "builder", None)
    (clone / "keys" / "server.json").unlink()
    assert find_owner(clone, "builder") is None


def test_a_private_key_that_others_may_read_is_refused(clone: Path, tmp_path: Path) -> None:
    make_key(clone, "server", "builder", None)
    (tmp_path / "private" / "server.pem").chmod(0o640)
    with pytest.raises(UserError, match="others may read this private key: `chmod 600"):
        find_owner(clone, "builder")


def test_an_encrypted_key_needs_its_passphrase(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(clone, "anna", "approver", "correct horse")
    assert b"ENCRYPTED" in (tmp_path / "private" / "anna.pem").read_bytes()
    with pytest.raises(UserError, match="is encrypted: set MAMMOFLOW_KEY_PASSPHRASE"):
        find_owner(clone, "approver")
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(UserError, match="the passphrase is wrong"):
        find_owner(clone, "approver")
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert find_owner(clone, "approver") is not None


def test_the_environment_may_name_one_file_of_any_name(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        make_key(clone, name, "builder", None)
    with pytest.raises(UserError, match=r"several keys of the role builder \(one, two\)"):
        find_owner(clone, "builder")
    secret = tmp_path / "secret-of-ci"
    (tmp_path / "private" / "two.pem").rename(secret)
    monkeypatch.setenv(FILE, str(secret))
    owner = find_owner(clone, "auditor", "builder")
    assert owner is not None
    assert owner.key.name == "two"
    monkeypatch.setenv(FILE, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="there is no such file"):
        find_owner(clone, "builder")


def test_a_private_key_that_does_not_fit_its_public_half_is_refused(
    clone: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        make_key(clone, name, "builder", None)
    (tmp_path / "private" / "two.pem").replace(tmp_path / "private" / "one.pem")
    with pytest.raises(UserError, match=r"is not the private half of keys/one\.json"):
        find_owner(clone, "builder")


def test_a_withdrawn_key_signs_no_more(clone: Path) -> None:
    make_key(clone, "server", "builder", None)
    withdraw_key(clone, "server", datetime(2026, 11, 27, 10, tzinfo=UTC))
    assert find_owner(clone, "builder") is None
    said = json.loads((clone / "keys" / "server.json").read_text())
    assert said["withdrawn"] == "2026-11-27T10:00:00+00:00"
    with pytest.raises(UserError, match="was withdrawn already, from 2026-11-27"):
        withdraw_key(clone, "server", datetime(2026, 12, 1, tzinfo=UTC))
    with pytest.raises(UserError, match="has no key 'nobody'"):
        withdraw_key(clone, "nobody", datetime(2026, 12, 1, tzinfo=UTC))


def test_each_byte_of_a_public_key_counts(clone: Path) -> None:
    key, _ = make_key(clone, "server", "builder", None)
    path = clone / "keys" / "server.json"
    before = path.read_bytes()
    for at in range(len(before) - 1):  # the last one ends the line
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        try:
            assert read_key(path) != key, at
        except ValueError as error:
            assert str(error).startswith("server.json in keys/ "), at  # noqa: PT017
