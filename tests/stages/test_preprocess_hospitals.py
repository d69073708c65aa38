"""What the stage makes of the images of several machines, anonymisers and faults of its own."""

import errno
import traceback
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from mammo.base.atomic_files import read_json
from mammo.compute.worker_pool import WorkerPool
from mammo.dicom import header
from mammo.dicom.header import Description
from mammo.dicom.reader import read_mammogram
from mammo.imaging import breast_mask
from mammo.intake import examine, prepare
from mammo.intake.examine import Examination, ProgramError, find_doubtful_patients
from mammo.kept.result_store import Store
from stages import preprocess
from tests.support.contents import contents
from tests.support.dicoms import PERSON, half_breast, plain
from tests.support.preprocessing import Collection, made_of, settings

FOR_PROCESSING = {
    "SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing,
    "PresentationIntentType": "FOR PROCESSING",
}
GENERATED = {
    "SOPClassUID": uid.BreastTomosynthesisImageStorage,
    "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"],
}


Records = list[dict[Hashable, Any]]


def picture(number: int) -> np.ndarray:
    return half_breast(120, 80 + number)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "data")


def test_of_an_exposure_that_comes_both_ways_the_one_for_presentation_is_used(
    collection: Collection, tmp_path: Path
) -> None:
    """Also if the other one stands first."""
    raw = (4095 - picture(0)).astype(np.uint16)
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    collection.add("1", "raw", plain(raw, **FOR_PROCESSING, **inverted))
    collection.add("1", "shown", plain(picture(0)))
    reasons, out = made_of(collection, tmp_path / "out")
    assert list(reasons) == ["raw"]
    assert "for processing, not for presentation" in reasons["raw"]
    assert [path.name for path in (out / "images").rglob("*.png")] == ["shown.png"]


def test_films_and_generated_images_are_counted(collection: Collection, tmp_path: Path) -> None:
    collection.add("1", "film", plain(half_breast(620, 480), Modality="RG", ViewPosition="CC"))
    collection.add("1", "made", plain(picture(1), Modality="MG", **GENERATED))
    collection.add("1", "other", plain(picture(2)))
    reasons, out = made_of(collection, tmp_path / "out")
    assert reasons == {}
    metrics = read_json(out / "metrics.json")
    assert (metrics["secondary_captures"], metrics["generated_2d"]) == (1, 1)


def test_a_window_or_padding_of_no_use_is_counted_also_in_a_remembered_run(
    collection: Collection, tmp_path: Path
) -> None:
    """And the breast is seen all the same."""
    bad_padding = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}
    bad_window = {"WindowCenter": 30000, "WindowWidth": 256}
    collection.add("1", "good", plain(picture(0)))
    collection.add("1", "window", plain(picture(1), **bad_window))
    collection.add("1", "both", plain(picture(2), **bad_window, **bad_padding))
    store = Store(tmp_path / "store", 2**30)
    for run in ("first", "again"):
        preprocess.run(settings(), collection.folder, tmp_path / run, 0, store)
        metrics = read_json(tmp_path / run / "metrics.json")
        assert (metrics["images"], metrics["header_ignored"]) == (3, 2)
    row: dict[Hashable, Any] = {
        "patient_id": "1",
        "image_id": "both",
        "laterality": "L",
        "view": "CC",
    }
    for known in (None, store):
        outcome, _ = examine.examine(row, settings().preprocess, collection.folder, known)
        assert outcome.description is not None
        assert outcome.description.ignored == ("padding", "window")


def test_flat_fields_and_pages_of_text_are_rejected_by_name(
    collection: Collection, tmp_path: Path
) -> None:
    noise = np.random.default_rng(4).normal(2000, 40, (120, 90))
    paper = np.full((240, 180), 255, np.uint8)
    paper[20:220:8, 20:160:2] = 40  # columns of type
    collection.add("1", "flat", plain(noise.astype(np.uint16)))
    collection.add("1", "page", plain(paper))
    collection.add("1", "breast", plain(picture(0)))
    reasons, _ = made_of(collection, tmp_path / "out")
    assert set(reasons) == {"flat", "page"}
    assert "a flat field" in reasons["flat"]
    assert "page of text" in reasons["page"]


# Whose fault it is


def wrong(*arguments: object, **options: object) -> None:
    raise KeyError(PERSON["PatientName"])


def test_a_fault_of_ours_ends_the_stage_with_its_traceback_and_rejects_nothing(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add("1", "100", plain(picture(0)))
    monkeypatch.setattr(header, "read_view", wrong)
    with pytest.raises(ProgramError) as caught:
        made_of(collection, tmp_path / "out")
    told = "".join(traceback.format_exception(caught.value))
    assert "KeyError at 1/100" in told
    assert 'raise KeyError(PERSON["PatientName"])' in told  # the line of the fault
    assert not [secret for secret in PERSON.values() if secret in told]
    assert not (tmp_path / "out" / "rejects.csv").exists()


def wrong_work(name: str) -> object:
    """As `examine` is called in a worker."""
    if name == "timeout":
        raise TimeoutError("ours")
    breast_row: dict[Hashable, Any] = {
        "patient_id": "1",
        "image_id": "100",
        "laterality": "L",
        "view": "CC",
    }
    vars(prepare)["segment_small"] = wrong
    return examine.examine(breast_row, settings().preprocess, Path(name))


def test_a_fault_of_ours_comes_out_of_a_worker_with_its_traceback(collection: Collection) -> None:
    collection.add("1", "100", plain(picture(0)))
    with pytest.raises(ProgramError, match="KeyError at 1/100") as caught:
        list(WorkerPool(wrong_work, workers=1, seconds=300).map([str(collection.folder)]))
    told = "".join(traceback.format_exception(caught.value))
    assert "in prepare" in told
    assert 'raise KeyError(PERSON["PatientName"])' in told
    assert not [secret for secret in PERSON.values() if secret in told]
    assert breast_mask.segment_small is vars(prepare)["segment_small"]  # it was another process


def test_a_time_out_of_the_work_itself_is_no_item_that_hangs() -> None:
    with pytest.raises(TimeoutError, match="ours"):
        list(WorkerPool(wrong_work, workers=1, seconds=300).map(["timeout"]))


def test_a_full_disk_is_not_taken_for_a_fault_of_a_film(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add("1", "100", plain(picture(0)))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(preprocess, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        made_of(collection, tmp_path / "out")


# Who is who


def described(patient: str | None) -> Description:
    """What a header says that has this PatientID."""
    return Description("L", "CC", "", "", None, patient, False, False, False, ())


def outcome(patient: str | None) -> Examination:
    return Examination({}, "", description=described(patient))


def doubts(*images: tuple[str, str | None], site: str = "1") -> list[str]:
    """Sentences about images, each of a patient_id and a PatientID."""
    records: Records = [{"site_id": site, "patient_id": patient} for patient, _ in images]
    found = find_doubtful_patients(records, [outcome(name) for _, name in images])
    return [doubt.sentence for doubt in found]


def test_one_woman_under_two_ids_is_counted_and_not_rejected(
    collection: Collection, tmp_path: Path
) -> None:
    for number, (patient, name) in enumerate(
        [("1", "A17"), ("1", "A17"), ("2", "a17 "), ("3", "B2"), ("4", "")]
    ):
        collection.add(patient, f"{number}", plain(picture(number), PatientID=name))
    reasons, out = made_of(collection, tmp_path / "out")
    assert reasons == {}
    assert read_json(out / "metrics.json")["patients_in_doubt"] == 2
    everything = b"".join(contents(out).values())
    assert b"A17" not in everything
    hashed = read_mammogram(collection.path("1", "0"), 64).description.patient
    assert str(hashed).encode() not in everything


def test_two_ids_with_one_patient_id_are_named_by_the_ids_of_the_table() -> None:
    (sentence,) = doubts(("17", "x"), ("23", "x"), ("17", "x"), ("4", "y"))
    assert "one PatientID to the patients 17, 23 of train.csv" in sentence
    assert "one woman" in sentence


def test_one_id_with_two_patient_ids_is_named() -> None:
    (sentence,) = doubts(("17", "x"), ("17", "y"), ("4", "z"), ("4", "z"), ("5", "a"), ("5", "a"))
    assert "2 PatientIDs to the images of patient 17 of train.csv" in sentence


@pytest.mark.parametrize("women", [2, 3, 5, 50])
def test_what_an_anonymiser_wrote_for_everybody_says_nothing(women: int) -> None:
    everybody = [(str(number), "ANON") for number in range(women)]
    assert doubts(*everybody) == []
    others = [(f"other{number}", f"x{number}") for number in range(3)]
    assert (doubts(*everybody, *others) == []) == (women > 4)


def test_what_an_anonymiser_wrote_anew_for_each_exam_says_nothing() -> None:
    assert doubts(*((str(number // 2), f"exam{number}") for number in range(20))) == []


def test_the_same_number_at_another_site_is_another_woman() -> None:
    records: Records = [
        {"site_id": site, "patient_id": f"{site}-{n}"} for site in "ab" for n in range(3)
    ]
    assert find_doubtful_patients(records, [outcome(str(n)) for _ in "ab" for n in range(3)]) == []


def test_headers_without_an_id_and_rejected_images_say_nothing() -> None:
    assert doubts(("1", None), ("2", None), ("3", "x")) == []
    records: Records = [{"site_id": "1", "patient_id": str(number)} for number in range(3)]
    rejected = Examination(None, "no breast", description=described("x"))
    assert find_doubtful_patients(records, [rejected, outcome("x"), outcome("y")]) == []


def test_the_store_does_not_keep_who_she_is_and_a_remembered_run_knows_it_all_the_same(
    collection: Collection, tmp_path: Path
) -> None:
    for number, patient in enumerate("1123"):
        name = "A17" if patient in "12" else "B4"
        collection.add(patient, f"{number}", plain(picture(number), PatientID=name))
    store = Store(tmp_path / "store", 2**30)
    for run in ("first", "again"):
        preprocess.run(settings(), collection.folder, tmp_path / run, 0, store)
        assert read_json(tmp_path / run / "metrics.json")["patients_in_doubt"] == 2
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    kept = b"".join(contents(store.folder).values())
    hashed = str(read_mammogram(collection.path("1", "0"), 64).description.patient)
    assert b"instance" in kept
    assert b"A17" not in kept
    assert hashed.encode() not in kept
    assert bytes.fromhex(hashed) not in kept
