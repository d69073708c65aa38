"""Feed damaged mammograms to the reader: it must read or refuse them, and nothing worse.

    python -m tests.support.fuzz_dicom 20000 fuzz            # of each syntax; 8 minutes on a core
    python -m tests.support.fuzz_dicom 200 fuzz "JPEG-LS"    # of one

Hypothesis draws what is done to small good files of each transfer syntax. The reader works in a
child process with a limit on its memory; the parent sees it crash, or hang for more than
five seconds. What goes wrong is kept under the folder named, with the file that did it; then the
exit status is 1.
"""

import faulthandler
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.reader import read_mammogram
from tests.support import dicoms
from tests.support.dicoms import PERSON

BATCH = 1000  # files a child process reads
SECONDS = 5  # that a file may take
MEMORY = 2**30  # bytes more than the child has before its first file
HEIGHT, WIDTH = 64, 48
LONG_SIDE = 32
TAGS = {"WindowCenter": 1500, "WindowWidth": 3000, "ImageLaterality": "L", "ViewPosition": "CC"}
FILM = {
    "Modality": "RG", "BodyPartExamined": "BREAST", "SeriesDescription": "L CC",
    "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"], "PixelPaddingValue": 4095,
    "PixelPaddingRangeLimit": 4095,
}  # fmt: skip


def _plain_seeds() -> list[bytes]:
    pixels = dicoms.half_breast(HEIGHT, WIDTH)
    table = dicoms.lookup_table(np.linspace(0, 65535, 4096).astype(np.uint16), 0, 16)
    frame = pydicom.Dataset()
    frame.FrameVOILUTSequence = [pydicom.Dataset()]
    frame.XRay3DFrameTypeSequence = [pydicom.Dataset()]
    frame.XRay3DFrameTypeSequence[0].FrameType = FILM["ImageType"]
    frame.FrameVOILUTSequence[0].WindowCenter = frame.FrameVOILUTSequence[0].WindowWidth = 2000
    large = np.kron(pixels, np.ones((10, 10), np.uint16))  # as film must be
    syntaxes = uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian
    return [
        dicoms.plain(pixels, **TAGS),
        dicoms.plain(pixels.astype(np.int16) - 2048, PixelPaddingValue=-2028),
        dicoms.plain((pixels >> 4).astype(np.uint8), VOILUTFunction="SIGMOID", **TAGS),
        dicoms.plain(pixels, VOILUTSequence=[table]),
        dicoms.plain(large, SharedFunctionalGroupsSequence=[frame], **FILM),
        dicoms.plain(pixels, **TAGS)[132:],  # without preamble
        *(dicoms.saved(dicoms.dataset(pixels, syntax, **TAGS)) for syntax in syntaxes),
        dicoms.saved(dicoms.dataset(pixels.byteswap(), uid.ExplicitVRBigEndian, **TAGS)),
    ]


def _jpeg_ls_seeds() -> list[bytes]:
    """From pydicom's own files: no encoder is at hand."""
    seeds = []
    for name in ("MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_16.dcm"):
        source = pydicom.dcmread(str(get_testdata_file(name)))
        kind = np.int16 if source.PixelRepresentation else np.uint16
        blank = np.zeros((source.Rows, source.Columns), kind)
        frame = get_frame(source.PixelData, 0, number_of_frames=1)
        syntax = source.file_meta.TransferSyntaxUID
        seeds.append(dicoms.encapsulated(blank, syntax, frame, BitsStored=16, HighBit=15))
    return seeds


@cache
def seeds() -> dict[str, list[bytes]]:
    """Good files of each syntax."""
    pixels = dicoms.half_breast(HEIGHT, WIDTH)
    signed = pixels.astype(np.int16) - 2048
    lossless = [dicoms.jpeg_lossless(pixels, **TAGS)]
    lossy = bytes(imagecodecs.jpeg_encode(pixels, level=90, bitspersample=12))
    return {
        "uncompressed": _plain_seeds(),
        "RLE": [dicoms.rle(pixels, **TAGS), dicoms.rle(signed)],
        "JPEG lossless": lossless,
        "JPEG 2000": [dicoms.jpeg_2000(pixels, 3, **TAGS), dicoms.jpeg_2000(pixels, 1)],
        "HTJ2K": [dicoms.htj2k(pixels, 3, **TAGS), dicoms.htj2k(pixels, 1)],
        "JPEG-LS": _jpeg_ls_seeds(),
        "JPEG lossy": [
            dicoms.encapsulated(pixels, uid.JPEGExtended12Bit, lossy, PixelPaddingValue=4095)
        ],
    }


Change = Callable[[bytearray], None]
Spot = tuple[str, float]  # a part of the file, and a share of it
NASTY = [b"\0", b"\xff", b"\x7f\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"]


def _overwrite(spot: Spot, value: bytes) -> Change:
    def change(content: bytearray) -> None:
        at = _at(content, spot)
        content[at : at + len(value)] = value

    return change


def _insert(spot: Spot, value: bytes) -> Change:
    def change(content: bytearray) -> None:
        at = _at(content, spot)
        content[at:at] = value

    return change


def _delete(spot: Spot, length: int) -> Change:
    def change(content: bytearray) -> None:
        at = _at(content, spot)
        del content[at : at + length]

    return change


def _repeat(spot: Spot, length: int, times: int) -> Change:
    def change(content: bytearray) -> None:
        at = _at(content, spot)
        content[at:at] = content[at : at + length] * times

    return change


def _truncate(share: float) -> Change:
    def change(content: bytearray) -> None:
        del content[_at(content, ("file", share)) :]

    return change


def _value(tag: int, value: int) -> Change:
    """Put a number where the header has a two-byte one, such as Rows (PS3.5 7.1)."""

    def change(content: bytearray) -> None:
        head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        at = content.find(head + b"US")
        if at >= 0:
            content[at + 8 : at + 10] = value.to_bytes(2, "little")

    return change


def _at(content: bytearray, spot: Spot) -> int:
    """Where that is, never in the preamble: a file without its mark is refused at once."""
    part, share = spot
    begin = 132 if part == "file" else content.rfind(b"\xe0\x7f\x10\x00") + 12
    end = min(len(content), begin + 100) if part == "head" else len(content)
    return min(begin + int(share * (end - begin)), len(content))


def changes() -> SearchStrategy[list[Change]]:
    """What is done to a file, as Hypothesis draws it."""
    share = st.integers(0, 2**20 - 1).map(lambda number: number / 2**20)
    # Half of it into the first bytes of the stream, which decoders believe.
    where = st.tuples(st.sampled_from(["file", "stream", "head", "head"]), share)
    tags = [0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280002]
    tags += [0x00280120, 0x00280121]
    values = st.one_of(st.sampled_from([0, 1, 8, 16, 255, 32768, 65535]), st.integers(0, 65535))
    byte = st.builds(_overwrite, where, st.binary(min_size=1, max_size=1))
    one = st.one_of(
        byte,
        byte,  # the gentlest gets furthest into a decoder
        byte,
        st.builds(_overwrite, where, st.one_of(st.sampled_from(NASTY), st.binary(max_size=8))),
        st.builds(_insert, where, st.binary(max_size=64)),
        st.builds(_delete, where, st.integers(1, 400)),
        st.builds(_repeat, where, st.integers(1, 400), st.integers(1, 50)),
        st.builds(_truncate, share),
        st.builds(_value, st.sampled_from(tags), values),
    )
    return st.one_of(st.lists(byte, min_size=1, max_size=3), st.lists(one, min_size=1, max_size=3))


@dataclass(frozen=True)
class Fault:
    """Something worse than a refusal."""

    syntax: str
    what: str
    file: Path


def read(content: bytes) -> bool:
    """Whether a file was read; False if it was refused.

    Raises:
        Exception: anything else that comes of it, an AssertionError among them.
    """
    try:
        pixels = read_mammogram(content, LONG_SIDE).pixels
    except UnreadableDicom as error:
        refusal = str(error)
    else:
        assert pixels.dtype == np.uint8
        assert 0 < max(pixels.shape) <= LONG_SIDE
        return True
    assert not any(secret in refusal for secret in PERSON.values()), refusal
    return False


def fuzz(syntax: str, count: int, folder: Path, counts: dict[str, int]) -> Iterator[Fault]:
    """Damage and read `count` files; yield what went wrong; add what was read to `counts`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        done = 0
        for attempt in range(100):  # a child that died is followed by one with another seed
            begun, good, peak = context.Value("i", 0), context.Value("i", 0), context.Value("q", 0)
            current = context.RawArray("c", 2**20)
            child = context.Process(
                target=_batch,
                args=(syntax, start + attempt, size - done, folder, current, begun, good, peak),
            )
            child.start()
            hung = _watch(child, begun)
            done += begun.value
            counts["files"] += begun.value
            counts["read"] += good.value
            counts["peak"] = max(counts["peak"], peak.value)
            for kept in sorted(folder.glob("fault-*.txt")):
                yield Fault(syntax, kept.read_text(), kept.with_suffix(".dcm"))
                kept.unlink()
            if child.exitcode == 0:
                break
            how = "hung" if hung else f"crashed with status {child.exitcode}"
            file = folder / f"{how.split()[0]}-{start}-{attempt}.dcm"
            file.write_bytes(_unpacked(current.raw))
            yield Fault(syntax, how, file)


def _watch(child: multiprocessing.context.ForkServerProcess, begun: "Synchronized[int]") -> bool:
    """Wait for a child; kill it and say so if it stays with one file for too long."""
    last, since = 0, time.monotonic()
    while child.is_alive():
        child.join(0.2)
        if begun.value != last:
            last, since = begun.value, time.monotonic()
        elif time.monotonic() - since > (SECONDS if last else 60):  # it must start first
            child.kill()
            child.join()
            return True
    return False


def _packed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "little") + content


def _unpacked(memory: bytes) -> bytes:
    return memory[4 : 4 + int.from_bytes(memory[:4], "little")]


def _batch(
    syntax: str,
    number: int,
    size: int,
    folder: Path,
    current: Any,
    begun: Any,
    good: Any,
    peak: Any,
) -> None:
    """The child: read `size` files, each put into shared memory before."""
    faulthandler.enable()
    sources = seeds()[syntax]
    for source in sources:
        read_mammogram(source, LONG_SIDE)  # whatever is imported late
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))

    @seed(number)
    @settings(
        max_examples=size,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sources), changes())
    def one(content: bytes, damage: list[Change]) -> None:
        damaged = bytearray(content)
        for change in damage:
            change(damaged)
        packed = _packed(bytes(damaged))
        current[: len(packed)] = packed
        begun.value += 1
        try:
            good.value += read(bytes(damaged))
        except Exception as error:  # noqa: BLE001  (any but ours is what it looks for)
            name = folder / f"fault-{number}-{begun.value}"
            name.with_suffix(".dcm").write_bytes(damaged)
            name.with_suffix(".txt").write_text(f"{type(error).__name__}: {error}")

    one()
    peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Fuzz the syntaxes named, or all, and print a table."""
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    unknown = set(sys.argv[3:]) - set(seeds())
    if unknown:
        sys.exit(f"there are no files of {', '.join(unknown)}; write one of {', '.join(seeds())}")
    faults = 0
    for syntax in sys.argv[3:] or seeds():
        counts = dict.fromkeys(("files", "read", "peak"), 0)
        begin = time.monotonic()
        for fault in fuzz(syntax, count, folder / syntax, counts):
            faults += 1
            print(f"{fault.syntax}: {fault.what}: {fault.file}", flush=True)
        seconds = time.monotonic() - begin
        print(
            f"{syntax}: {counts['files']} files in {seconds:.0f} s, {counts['read']} read, the "
            f"others refused; peak {counts['peak'] / 1024:.0f} MiB",
            flush=True,
        )
    print(f"{faults} faults")
    raise SystemExit(min(faults, 1))


if __name__ == "__main__":
    main()
