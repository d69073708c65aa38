"""The store of results: what it gives back, forgets, and survives."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mammo.base.errors import UserError
from mammo.kept import result_store
from mammo.kept.code_version import _BESIDE, code_version, key_of
from mammo.kept.result_store import SHARDS, Store, hash_of, open_store
from tests.imports import ROOT, closure, module_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", 2**30)


def entries(store: Store) -> list[Path]:
    return sorted(path for path in store.folder.rglob("*") if path.is_file())


def test_what_was_put_is_got(store: Store) -> None:
    assert store.get(key_of("a")) is None
    store.put(key_of("a"), {"x": 0.1, "name": "é\n"}, b"\n\0content\n")
    assert store.get(key_of("a")) == ({"x": 0.1, "name": "é\n"}, b"\n\0content\n")
    assert store.get(key_of("b")) is None


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 100], ids=["empty", "short", "zeros"])
def test_a_damaged_entry_is_none_and_goes(store: Store, damage: bytes) -> None:
    store.put(key_of("a"), 1, b"content")
    [path] = entries(store)
    for content in (damage, path.read_bytes()[:-1]):
        path.write_bytes(content)
        assert store.get(key_of("a")) is None
        assert entries(store) == []
        store.put(key_of("a"), 1, b"content")
    assert store.get(key_of("a")) == (1, b"content")


def test_it_keeps_to_its_size_and_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = Store(tmp_path, 5 * 2**14 * SHARDS)
    keys = [f"00{number:062x}" for number in range(12)]  # of one shard
    for number, key in enumerate(keys[:5]):
        store.put(key, number, bytes(2**14 - 100))
        os.utime(tmp_path / "00" / key[2:], (number, number))
    assert store.get(keys[0]) is not None  # used now
    store.put(keys[5], 5, bytes(2**14 - 100))
    assert store.get(keys[1]) is None
    assert store.get(keys[0]) is not None
    for number, key in enumerate(keys):
        store.put(key, number, bytes(2**14 - 100))
        assert sum(path.stat().st_size for path in entries(store)) <= 5 * 2**14
    store.put(key_of("large"), 0, bytes(6 * 2**14))
    assert store.get(key_of("large")) is None


KILLED = """
import sys
from pathlib import Path
from mammo.kept.code_version import key_of
from mammo.kept.result_store import Store
store = Store(Path(sys.argv[1]), 2**30)
print("ready", flush=True)
number = 0
while True:
    store.put(key_of(str(number % 50)), number % 50, bytes([number % 50]) * 2**20)
    number += 1
"""


def test_killed_writers_leave_only_whole_entries(store: Store) -> None:
    for _ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, str(store.folder)],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        while store.get(key_of("3")) is None:
            assert all(writer.poll() is None for writer in writers)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    found = [store.get(key_of(str(number))) for number in range(50)]
    assert any(found)
    for number, kept in enumerate(found):
        assert kept in (None, (number, bytes([number]) * 2**20))


def test_a_store_that_cannot_be_written_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file", 2**30)
    result_store._complain.cache_clear()
    for name in "ab":
        store.put(key_of(name), 1)
        assert store.get(key_of(name)) is None
    assert capsys.readouterr().out.count("cannot be kept") == 1


def test_a_damaged_entry_of_a_store_that_may_only_be_read_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        store.put(key_of(name), 1, b"content")
    for path in entries(store):
        path.write_bytes(path.read_bytes()[:-1])
    before = entries(store)
    result_store._complain.cache_clear()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for method in ("unlink", "write_bytes", "mkdir", "replace"):
        monkeypatch.setattr(Path, method, refuse)
    for name in "ab":
        assert store.get(key_of(name)) is None
        store.put(key_of(name), 1, b"content")
    assert entries(store) == before
    assert capsys.readouterr().out.count("cannot be kept") == 1


def test_a_file_is_read_again_only_if_it_may_have_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert hash_of(path, store)[1] == b"one"
    assert hash_of(path, store)[1] == b"one"  # it is too young to be trusted
    monkeypatch.setattr(result_store, "SAFE_AGE", -1)
    digest, content = hash_of(path, store)
    assert content == b"one"
    assert hash_of(path, store) == (digest, None)
    path.write_bytes(b"two")
    os.utime(path, ns=(path.stat().st_atime_ns, 1))
    assert hash_of(path, store) == (hash_of(path, None)[0], b"two")
    assert hash_of(path, store) != (digest, None)


def test_the_code_is_what_the_module_imports_but_settings_and_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = closure(ROOT / "mammo/intake/cached_prepare.py")
    beside = {module_path(name) for name in _BESIDE}
    libraries = ("numpy",)
    now = code_version("mammo.intake.cached_prepare", libraries)
    assert now != code_version("mammo.intake.cached_prepare", ("pydicom",))
    original = Path.read_bytes
    for name in (
        *("dicom/pixels", "dicom/__init__", "imaging/breast_mask", "imaging/geometry", "pins"),
        *("base/settings", "base/errors", "detector/detector"),
    ):
        changed = ROOT / "mammo" / f"{name}.py"
        code_version.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(
                Path,
                "read_bytes",
                lambda path, changed=changed: original(path) + b"\n# x" * (path == changed),
            )
            then = code_version("mammo.intake.cached_prepare", libraries)
        assert (then != now) == (changed in needed - beside), name
    code_version.cache_clear()


def test_the_environment_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MAMMOFLOW_STORE", "MAMMOFLOW_STORE_GIB"):
        monkeypatch.delenv(name, raising=False)
    assert open_store() == Store(tmp_path / ".cache/results", 32 * 2**30)
    monkeypatch.setenv("MAMMOFLOW_STORE", "/elsewhere")
    monkeypatch.setenv("MAMMOFLOW_STORE_GIB", "0.5")
    assert open_store() == Store(Path("/elsewhere"), 2**29)
    monkeypatch.setenv("MAMMOFLOW_STORE_GIB", "much")
    with pytest.raises(UserError, match="MAMMOFLOW_STORE_GIB: 'much' is no size"):
        open_store()
    monkeypatch.setenv("MAMMOFLOW_STORE", "off")
    assert open_store() is None
