"""Results kept from run to run, so that what new data cost follows the new data.

A result is found by a hash of all that it follows from: the content of its file, the settings, and
the source and libraries of the code (`code_version`). The store lies outside the pipeline's outs:
it may be deleted at any time, is shared by any number of processes and survives kill -9, because
an entry appears whole or not at all and is checked when it is read. It is `.cache/results` in the
project's folder; MAMMOFLOW_STORE names another folder, or is `off`, and MAMMOFLOW_STORE_GIB says
how large it may grow before the entries go that were not used for longest.
"""

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mammo.base.errors import UserError
from mammo.base.progress import say
from mammo.kept.code_version import key_of

FOLDER = Path(".cache/results")
GIB = 32.0
"""Holds prepared images and crops of about 90,000 mammograms at 1024 pixels."""

SHARDS = 256
"""Folders that entries are spread over. Each keeps to its share of the size, so that no
writer has to look through the whole store."""

SAFE_AGE = 2.0
"""Seconds after which a file's change time tells one change from the next on any file system."""


_BLOCK = 4096  # bytes that even the smallest file takes
_DIGEST = 32


@dataclass(frozen=True)
class Store:
    """A folder of results, at most `limit` bytes."""

    folder: Path
    limit: int

    def get(self, key: str) -> tuple[Any, bytes] | None:
        """The facts and the content kept under `key`; None if there are none, or not whole."""
        path = self._path(key)
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        digest, rest = entry[:_DIGEST], entry[_DIGEST:]
        if hashlib.sha256(rest).digest() != digest:
            try:
                path.unlink(missing_ok=True)
            except OSError:  # a store that may only be read
                _complain(str(self.folder))
            return None
        facts, _, content = rest.partition(b"\n")
        try:
            os.utime(path)  # the time of last use
        except OSError:  # evicted meanwhile, or a store that may only be read
            _complain(str(self.folder))
        return json.loads(facts), content

    def put(self, key: str, facts: Any, content: bytes = b"") -> None:
        """Keep `facts` (what JSON can hold) and `content`.

        If the store is full or read-only, one line says so, once, and the work goes on without it.
        """
        rest = json.dumps(facts).encode() + b"\n" + content
        if len(rest) > self.limit // SHARDS:
            return
        path = self._path(key)
        partial = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(path.parent, _DIGEST + len(rest))
            partial.write_bytes(hashlib.sha256(rest).digest() + rest)
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            _complain(str(self.folder))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def _make_room(self, shard: Path, size: int) -> None:
        """Remove what was used longest ago, a killed writer's leavings included."""
        found = []
        with os.scandir(shard) as entries:
            for entry in entries:
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # another process was faster
                    continue
                found.append((stat.st_mtime_ns, max(stat.st_size, _BLOCK), entry.path))
        excess = sum(taken for _, taken, _ in found) + max(size, _BLOCK) - self.limit // SHARDS
        for _, taken, path in sorted(found):
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= taken


def open_store() -> Store | None:
    """The store that the environment names; None if it is switched off.

    Raises:
        UserError: MAMMOFLOW_STORE_GIB is no size.
    """
    where = os.environ.get("MAMMOFLOW_STORE") or str(FOLDER)
    if where == "off":
        return None
    limit = read_limit("MAMMOFLOW_STORE_GIB", GIB)
    return Store(Path(where).resolve(), limit)  # also for a worker in another folder


def read_limit(variable: str, default: float) -> int:
    """Bytes that a folder may take: an environment variable's GiB.

    Args:
        variable: its name.
        default: in GiB, if it is not set or empty.

    Raises:
        UserError: it is no size.
    """
    size = os.environ.get(variable) or str(default)
    try:
        return int(float(size) * 2**30)
    except (ValueError, OverflowError):
        raise UserError(f"{variable}: {size!r} is no size; give a number of GiB") from None


def hash_of(path: Path, store: Store | None) -> tuple[str, bytes | None]:
    """A hash of a file's content, and the content if it had to be read.

    A file whose inode, size and times are those of a file hashed before is not read again.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    identity = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    seen = key_of("file", *map(str, identity))
    known = store.get(seen) if store is not None else None
    if known is not None:
        return str(known[0]), None
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # A file changed just now may change once more within the same tick of the clock.
    if store is not None and time.time() - max(stat.st_mtime, stat.st_ctime) > SAFE_AGE:
        store.put(seen, digest)
    return digest, content


@cache
def _complain(folder: str) -> None:
    say(f"{folder}: results cannot be kept there; going on without")
