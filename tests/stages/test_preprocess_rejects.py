"""Each bad file lands in rejects.csv with a sentence, and costs the good ones nothing."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import uid

from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.data.reading import read_table
from mammo.data.tables import MANIFEST
from mammo.intake import examine
from mammo.intake.examine import Examination
from stages import preprocess
from tests.support import dicoms
from tests.support.dicoms import half_breast, plain
from tests.support.preprocessing import Collection, made_of


def breast(number: int) -> np.ndarray:
    """Another picture for each number."""
    return half_breast(120, 80 + number)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Three good images."""
    made = Collection(tmp_path / "data")
    made.add("1", "100", plain(breast(0)))
    made.add("1", "101", dicoms.jpeg_2000(breast(1)))
    made.add("2", "102", dicoms.rle(breast(2)))
    return made


def pictures(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in (out / "images").rglob("*")
        if path.is_file()
    }


def bad_files() -> dict[str, tuple[bytes | None, str]]:
    """Contents by a name for their fault, and a part of the reason."""
    good = breast(3)
    without, empty = dicoms.dataset(good), dicoms.dataset(good)
    del without["PixelData"]
    empty["PixelData"].value = b""
    marker = np.random.default_rng(3).integers(0, 200, (120, 80)).astype(np.uint16)
    marker[10:40:8, 50:70] = 4000  # strokes of lead
    frame = bytearray(dicoms.jpeg_2000_frame(good))
    frame[8:16] = (50000).to_bytes(4, "big") * 2
    return {
        "notdicom": (b"GIF89a" * 100, "it is not a DICOM file"),
        "empty": (b"", "it is not a DICOM file"),
        "norow": (None, "there is no such file"),
        "cut": (plain(good)[:3000], "damaged or cut short"),
        "nopixels": (dicoms.saved(without), "holds no pixel data"),
        "emptypixels": (dicoms.saved(empty), "its pixel data are empty"),
        "short": (plain(good, Rows=121), "damaged or cut short"),
        "syntax": (
            dicoms.encapsulated(good, uid.MPEG2MPML, b"\0" * 100), "which is not supported"
        ),
        "notmg": (plain(good, Modality="US"), "it is an ultrasound image, not a mammogram"),
        "tomo": (plain(good, NumberOfFrames=40), "it holds 40 frames; a mammogram has one"),
        "colour": (plain(good, SamplesPerPixel=3), "it is a colour image"),
        "flat": (plain(np.full((50, 40), 7, np.uint16)), "all its pixels have one value"),
        "tiny": (plain(np.full((1, 1), 7, np.uint16)), "all its pixels have one value"),
        "padding": (
            plain(np.full((9, 9), 7, np.uint16), PixelPaddingValue=7),
            "all its pixels have one value",
        ),
        "nobreast": (plain(marker), "no breast can be seen in it"),
        "large": (plain(good, Rows=20000, Columns=20000), "claims 20000 x 20000 pixels"),
        "bomb": (plain(good, Rows=60000, Columns=60000), "claims 60000 x 60000 pixels"),
        "bombstream": (
            dicoms.encapsulated(good, uid.JPEG2000Lossless, bytes(frame)), "its pixel data are"
        ),
        "highbit": (plain(good, HighBit=15), "in an unusual position (HighBit 15)"),
        "otherside": (plain(good, ImageLaterality="R"), "says right breast, train.csv says left"),
    }  # fmt: skip


def test_bad_files_are_rejected_each_with_its_reason_and_the_good_ones_are_as_ever(
    collection: Collection, tmp_path: Path
) -> None:
    assert made_of(collection, tmp_path / "good")[0] == {}
    expected = {}
    for name, (content, reason) in bad_files().items():
        collection.add("3", name, content)
        expected[name] = reason
    collection.path("3", "folder").mkdir()
    collection.add("3", "folder")
    expected["folder"] = "it is a folder or a device"
    reasons, out = made_of(collection, tmp_path / "out")
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name]
    assert pictures(out) == pictures(tmp_path / "good")
    good = (tmp_path / "good" / "manifest.csv").read_bytes()
    assert (out / "manifest.csv").read_bytes() == good
    metrics = read_json(out / "metrics.json")
    assert (metrics["images"], metrics["rejects"]) == (3, len(expected))
    assert metrics["side_differs"] == 1


def test_odd_files_are_read_all_the_same(collection: Collection, tmp_path: Path) -> None:
    good = breast(3)
    signed = breast(4).astype(np.int16) - 2048
    table = dicoms.lookup_table(np.arange(4096, dtype=np.uint16), 0, 12)
    odd = {
        "width0": plain(breast(5), WindowCenter=1500, WindowWidth=0),
        "negative": plain(breast(6), WindowCenter=1500, WindowWidth=-5),
        "several": plain(breast(7), WindowCenter=[1500, 9], WindowWidth=[3000, 9]),
        "table": plain(breast(8), VOILUTSequence=[table]),
        "sigmoid": plain(breast(9), WindowCenter=1500, WindowWidth=3000, VOILUTFunction="SIGMOID"),
        "signed": plain(signed),
        "bits10": plain(breast(10) >> 2, BitsStored=10, HighBit=9),
        "bits14": plain(breast(11) << 2, BitsStored=14, HighBit=13),
        "bits16": plain(breast(12) << 4, BitsStored=16, HighBit=15),
        "padded": plain(np.pad(good, ((0, 0), (0, 30)), constant_values=4095),
                        PixelPaddingValue=4095),
        "capture": plain(half_breast(620, 480), SOPClassUID=uid.SecondaryCaptureImageStorage),
        "burnt": plain(breast(14), BurnedInAnnotation="YES"),
        "Öl und 乳房 1": plain(breast(15)),
    }  # fmt: skip
    for name, content in odd.items():
        collection.add("Frau Müller 3", name, content)
    reasons, out = made_of(collection, tmp_path / "out")
    assert reasons == {}
    assert (out / "images" / "Frau Müller 3" / "Öl und 乳房 1.png").is_file()
    metrics = read_json(out / "metrics.json")
    assert (metrics["secondary_captures"], metrics["burned_in_annotation"]) == (1, 1)


def test_copies_are_rejected_wherever_they_are_and_the_first_stays(
    collection: Collection, tmp_path: Path
) -> None:
    original = breast(3)
    collection.add("3", "103", plain(original, SOPInstanceUID="1.2.3"))
    collection.add("3", "104", plain(breast(4), SOPInstanceUID="1.2.3"))
    collection.add("3", "105", dicoms.jpeg_2000(original, SOPInstanceUID="1.2.4"))
    collection.add("4", "106", dicoms.rle(original, SOPInstanceUID="1.2.5"))
    collection.add("4", "107", plain(breast(5), SOPInstanceUID="1.2.4"))
    collection.add("4", "108", plain(breast(6), SOPInstanceUID="1.2.6"))
    reasons, out = made_of(collection, tmp_path / "out")
    whose = "103 of another patient, 3: find out whose it is"
    assert reasons == {
        "104": "it has the SOP Instance UID of 103: take the copy out of train.csv",
        "105": "it shows, pixel for pixel, the picture of 103: take the copy out of train.csv",
        "106": f"it shows, pixel for pixel, the picture of {whose}",
        "107": f"it has the SOP Instance UID of {whose}",
    }
    assert {Path(name).stem for name in pictures(out)} == {"100", "101", "102", "103", "108"}
    assert list(read_table(out / "manifest.csv", MANIFEST)["image_id"][3:]) == ["103", "108"]
    assert read_json(out / "metrics.json")["duplicates"] == 4


def test_links_out_of_the_data_are_rejected_and_dvcs_own_are_not(
    collection: Collection, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.dcm"
    elsewhere.write_bytes(plain(breast(3)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "104.dcm").write_bytes(plain(breast(4)))
    cached = tmp_path / "cache" / "files" / "md5" / "0a" / ("1" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(plain(breast(5)))
    collection.add("3", "103").symlink_to(elsewhere)
    collection.path("4", "").parent.symlink_to(tmp_path / "folder")
    collection.add("4", "104")
    collection.add("3", "105").symlink_to(cached)
    collection.add("3", "106").symlink_to("106.dcm")
    collection.add("3", "107").symlink_to("nowhere.dcm")
    (collection.folder / "more.dcm").write_bytes(plain(breast(6)))
    collection.add("3", "108").symlink_to("../../more.dcm")
    reasons, _ = made_of(collection, tmp_path / "out")
    out = "the file is a symbolic link out of the data folder: put the file itself there"
    assert reasons == {
        "103": out,
        "104": out,
        "106": "the file is a symbolic link that leads nowhere",
        "107": "there is no such file",
    }


def test_files_that_no_row_names_are_counted_but_not_named(
    collection: Collection, tmp_path: Path
) -> None:
    for name in ("Doe^Jane.dcm", "note.txt", ".DS_Store"):
        (collection.folder / "train_images" / name).write_bytes(b"1")
    reasons, out = made_of(collection, tmp_path / "out")
    assert reasons == {}
    assert read_json(out / "metrics.json")["files_without_row"] == 2
    assert not any("Doe" in path.read_text("latin-1") for path in out.glob("*.*"))


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "a/b", "12 ", " 12", "a" * 200])
def test_an_id_that_is_no_file_name_is_refused_with_its_line(
    collection: Collection, tmp_path: Path, name: str
) -> None:
    with (collection.folder / "train.csv").open("a") as table:
        table.write(f"1,{name},200,L,CC,60,0,0,0,,0,B,29,0\n")
    with pytest.raises(UserError, match=r"train\.csv: line 5, patient_id: .* is no id"):
        made_of(collection, tmp_path / "out")
    assert not list(tmp_path.rglob("*200*"))


ORIGINAL = preprocess._prepare_one


def dangerous(row: dict[Hashable, Any], out: Path, **others: Any) -> Examination:
    """A decoder with a fault, for three of the images."""
    if row["image_id"] == "crash":
        ctypes.string_at(0)
    if row["image_id"] == "killed":
        (out / "images" / "3").mkdir(parents=True, exist_ok=True)
        (out / "images" / "3" / ".killed.png.partial").write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    if row["image_id"] == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        time.sleep(10_000)
    return ORIGINAL(row, out=out, **others)


def test_a_decoder_that_crashes_or_hangs_costs_its_file_only(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of(collection, tmp_path / "good")
    for name in ("crash", "hang", "killed"):
        collection.add("3", name, plain(breast(9)))
    collection.add("3", "last", b"not dicom")
    monkeypatch.setattr(preprocess, "_prepare_one", dangerous)
    monkeypatch.setattr(examine, "SECONDS", 12.0)
    reasons, out = made_of(collection, tmp_path / "out", workers=2)
    assert reasons == {
        "crash": "reading it crashes the decoder, twice",
        "hang": "reading it does not end within 300 seconds",
        "killed": "reading it crashes the decoder, twice",
        "last": "it is not a DICOM file",
    }
    assert pictures(out) == pictures(tmp_path / "good")


def test_the_order_of_the_workers_does_not_decide_which_copy_stays(
    collection: Collection, tmp_path: Path
) -> None:
    make: Callable[..., bytes] = plain
    for number in range(8):
        collection.add("5", f"c{number}", make(breast(4), SOPInstanceUID=f"1.2.{number % 3}"))
    first, _ = made_of(collection, tmp_path / "one", workers=2)
    assert first == made_of(collection, tmp_path / "two")[0]
    assert list(first) == [f"c{number}" for number in range(1, 8)]


def test_every_reason_is_a_sentence_without_an_id_of_the_header(
    collection: Collection, tmp_path: Path
) -> None:
    for name, (content, _) in bad_files().items():
        collection.add("3", name, content)
    made_of(collection, tmp_path / "out")
    text = (tmp_path / "out" / "rejects.csv").read_text()
    assert not [secret for secret in dicoms.PERSON.values() if secret in text]
    assert not pd.read_csv(tmp_path / "out" / "rejects.csv")["reason"].isna().any()
