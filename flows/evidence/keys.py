"""Keys: the private halves outside the clone, the public ones in `keys/` of the repository.

    mammoflow keys new build-server --role builder

A private key is a PEM file that only its owner can read, in the folder MAMMOFLOW_KEYS (in one's
home if it is not set); MAMMOFLOW_KEY names a single file instead. If no private key has its public
half in `keys/`, nothing is signed, and everything else works.
"""

import functools
import getpass
import os
import re
import stat
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from flows.evidence.verify import PublicKey, read_key, read_keys
from mammo.base.atomic_files import write_json
from mammo.base.errors import UserError

Role = Literal["builder", "approver", "auditor"]

PUBLIC = "keys"
"""The folder of public keys, in the repository."""

FOLDER, FILE, PASSPHRASE = "MAMMOFLOW_KEYS", "MAMMOFLOW_KEY", "MAMMOFLOW_KEY_PASSPHRASE"
"""Variables of the environment: a folder of private keys, a single one, what encrypts them."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Owner:
    """A private key that may sign, with its public half."""

    key: PublicKey
    signer: CryptoSigner


def find_private_folder() -> Path:
    """The folder of private keys."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else Path.home() / ".config" / "mammoflow" / "keys"


def make_key(root: Path, name: str, role: str, passphrase: str | None) -> tuple[PublicKey, Path]:
    """Make a key: the private half in the folder of private keys, the public one in `keys/`.

    Args:
        root: the clone.
        name: of the key: small letters, digits and hyphens.
        role: what it may sign.
        passphrase: encrypts the private half; None or empty for no encryption.

    Returns:
        The public half, and the file of the private one.

    Raises:
        UserError: if a name or a role is not allowed, if there is such a key already, or if the
            folder of private keys lies in the clone.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a key: use small letters, digits and hyphens")
    if role not in get_args(Role):
        raise UserError(f"{role!r} is no role: choose one of {', '.join(get_args(Role))}")
    folder = find_private_folder()
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{FOLDER} lies in the clone, where a private key could be committed: name a folder "
            f"outside of it"
        )
    private, public = folder / f"{name}.pem", root / PUBLIC / f"{name}.json"
    for path in (private, public):
        if path.exists():
            raise UserError(f"{path} exists already: choose another name")
    key = Ed25519PrivateKey.generate()
    signer = CryptoSigner(key)
    made = signer.public_key
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # With its mode from the start, and never over another file.
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    found = PublicKey(name, role, made.keyid, made.keyval["public"])
    try:
        _write_key(public, found)
    except BaseException:
        private.unlink()
        raise
    return found, private


def withdraw_key(root: Path, name: str, since: datetime) -> PublicKey:
    """Withdraw a public key: what it signs after a time does not count.

    Args:
        root: the clone.
        name: of the key.
        since: the time, with its zone.

    Raises:
        UserError: if there is no such key, or it was withdrawn from an earlier time on.
    """
    path = root / PUBLIC / f"{name}.json"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise UserError(f"{PUBLIC}/ has no key {name!r}")
    try:
        found = read_key(path)
    except ValueError as error:
        raise UserError(f"{error}: restore it by `git checkout -- {PUBLIC}`") from None
    if found.withdrawn is not None and datetime.fromisoformat(found.withdrawn) <= since:
        raise UserError(f"the key {name} was withdrawn already, from {found.withdrawn} on")
    when = since.isoformat(timespec="seconds")
    withdrawn = PublicKey(found.name, found.role, found.keyid, found.public, when)
    _write_key(path, withdrawn)
    return withdrawn


def list_keys(root: Path) -> list[PublicKey]:
    """The public keys of a clone.

    Raises:
        UserError: if a file of `keys/` is no public key.
    """
    found, faults = read_keys(root / PUBLIC)
    if faults:
        raise UserError(f"{faults[0]}: restore it by `git checkout -- {PUBLIC}`")
    return sorted(found.values(), key=lambda key: key.name)


def find_owner(root: Path, *roles: str) -> Owner | None:
    """The private key that signs in one of these roles; None if there is none: then nobody signs.

    Args:
        root: the clone, whose `keys/` must have the public half.
        roles: the first one for which there is a key counts.

    Raises:
        UserError: if the file can be read by others, cannot be decrypted, does not fit its public
            half, or if there are several.
    """
    known = [key for key in list_keys(root) if key.withdrawn is None]
    if not known:
        return None
    if named := os.environ.get(FILE):
        if not Path(named).is_file():
            raise UserError(f"{FILE}={named}: there is no such file")
        signer = _load_key(Path(named))
        found = [key for key in known if key.keyid == signer.public_key.keyid]
        owners = [Owner(key, signer) for key in found if key.role in roles]
        return owners[0] if owners else None
    for role in roles:
        files = {
            key: find_private_folder() / f"{key.name}.pem"
            for key in known
            if key.role == role and (find_private_folder() / f"{key.name}.pem").is_file()
        }
        if len(files) > 1:
            names = ", ".join(key.name for key in files)
            raise UserError(
                f"there are several keys of the role {role} ({names}): name the file of the one to "
                f"sign with by {FILE}"
            )
        for key, file in files.items():
            signer = _load_key(file)
            if signer.public_key.keyid != key.keyid:
                raise UserError(f"{file} is not the private half of {PUBLIC}/{key.name}.json")
            return Owner(key, signer)
    return None


def ask_passphrase(confirm: bool, what: str) -> str | None:
    """The passphrase, from the environment or the terminal; None if there is none."""
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE] or None
    if not sys.stdin.isatty():
        return None
    given = getpass.getpass(f"Passphrase of {what}: ")
    if confirm and given and getpass.getpass("Once more: ") != given:
        raise UserError("the two passphrases differ: nothing was made")
    return given or None


def _write_key(path: Path, key: PublicKey) -> None:
    write_json(
        path,
        {
            "name": key.name,
            "role": key.role,
            "keyid": key.keyid,
            "keytype": "ed25519",
            "scheme": "ed25519",
            "keyval": {"public": key.public},
            "withdrawn": key.withdrawn,
        },
    )


def _load_key(path: Path) -> CryptoSigner:
    """A private key from its file.

    Raises:
        UserError: if others may read it, or it is no Ed25519 key that can be decrypted.
    """
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UserError(f"{path}: others may read this private key: `chmod 600 {path}`")
    return _decrypt(path, found.st_mtime_ns)


@functools.cache
def _decrypt(path: Path, _changed: int) -> CryptoSigner:
    """The key of a file; it is kept until the file changes, so that a passphrase is typed once.

    Raises:
        UserError: as `_load_key`.
    """
    pem = path.read_bytes()
    encrypted = b"ENCRYPTED" in pem
    passphrase = ask_passphrase(False, path.name) if encrypted else None
    if encrypted and passphrase is None:
        raise UserError(f"{path} is encrypted: set {PASSPHRASE}, or run this at a terminal")
    try:
        key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "the passphrase is wrong" if encrypted else "it is no private key"
        raise UserError(f"{path}: {why}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path}: is no Ed25519 key; make one by `mammoflow keys new`")
    return CryptoSigner(key)


def describe_key(key: PublicKey) -> str:
    """A key in one line."""
    withdrawn = f", withdrawn from {key.withdrawn} on" if key.withdrawn else ""
    return f"{key.name}  {key.role}  {key.keyid}{withdrawn}"
