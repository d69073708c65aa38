"""The whole of a tiny pipeline has the same bytes on this processor and on emulated ones.

An emulator computes approximate instructions in a way of its own and has no AVX-512, so what hangs
on either shows on any machine.
"""

import shutil
from pathlib import Path

from tests.support.emulator import NATIVE, PROCESSORS, outputs_of, under_emulators
from tests.support.tiny_pipeline import STAGES, prepare


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, by name, in the order of the stages."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = sorted(str(path.relative_to(folder)) for path in files)
    names.sort(key=lambda name: STAGES.index(name.split("/")[0]))
    return {name: (folder / name).read_bytes() for name in names}


def difference(ours: dict[str, bytes], theirs: dict[str, bytes]) -> str:
    """The first file that differs, and how; nothing if none does."""
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in ours or name not in theirs:
            return f"{name} is on one side only"
        one, other = ours[name], theirs[name]
        if one != other:
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
            at = min(len(one), len(other)) if at is None else at
            start = max(0, at - 40)
            return (
                f"{name} differs from byte {at} on ({len(one)} and {len(other)} bytes):\n"
                f"  {one[start : at + 40]!r}\n  {other[start : at + 40]!r}"
            )
    return ""


@under_emulators
def test_every_byte_is_the_same_on_another_processor(tmp_path: Path) -> None:
    prepare(tmp_path / NATIVE)
    for name in PROCESSORS:
        shutil.copytree(tmp_path / NATIVE, tmp_path / name)
    folders = {name: [str(tmp_path / name)] for name in (NATIVE, *PROCESSORS)}
    for name, said in outputs_of("tests.support.tiny_pipeline", folders).items():
        print(f"{name}:\n{said}")
    native = contents(tmp_path / NATIVE / "outputs")
    assert {name.split("/")[0] for name in native} == set(STAGES)
    assert any(name.startswith("explain/overlays/") for name in native)
    for name in PROCESSORS:
        told = difference(native, contents(tmp_path / name / "outputs"))
        assert not told, f"under an emulated {name}: {told}"


def test_a_difference_is_told_by_the_first_file_in_the_order_of_the_stages() -> None:
    ours = {"split/split.csv": b"a,b", "evaluate/metrics.json": b'{"auroc": 0.5}'}
    assert difference(ours, dict(ours)) == ""
    told = difference(ours, {**ours, "evaluate/metrics.json": b'{"auroc": 0.6}'})
    assert told.startswith("evaluate/metrics.json differs from byte 12 on (14 and 14 bytes):")
    assert "0.5" in told
    assert "0.6" in told
    assert difference(ours, {**ours, "split/split.csv": b"a,b,"}).startswith("split/split.csv diff")
    assert difference({}, dict(ours)) == "split/split.csv is on one side only"
    assert difference(ours, {"split/split.csv": b"a,b"}) == (
        "evaluate/metrics.json is on one side only"
    )
