"""Files, folders and a DICOMDIR become a list of files, and none outside them."""

import os
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet

from mammo.base.errors import UserError
from mammo.base.settings import load_params
from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.serving.intake import Reading, Refusal, list_files, read

SETTINGS = load_params().preprocess


def write(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_folder_gives_its_dicom_files_at_any_depth_and_counts_the_others(tmp_path: Path) -> None:
    named = write(tmp_path / "b" / "x.dcm")
    marked = write(tmp_path / "a" / "IM0001", bytes(128) + b"DICM")
    write(tmp_path / "train.csv", b"patient_id\n")
    write(tmp_path / ".hidden" / "y.dcm")
    write(tmp_path / "DICOMDIR", bytes(128) + b"DICM")
    listing = list_files([tmp_path, named])  # the same file twice is one
    assert listing.files == (marked, named)
    assert listing.left_out == 1


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: there is no such file"):
        list_files([tmp_path / "nothing"])


def test_a_path_that_does_not_exist_costs_itself_if_others_do(tmp_path: Path) -> None:
    good, long = write(tmp_path / "x.dcm"), tmp_path / ("y" * 300)
    assert list_files([tmp_path / "nothing", good, long]).files == (
        tmp_path / "nothing",
        good,
        long,
    )
    assert read(tmp_path / "nothing", SETTINGS) == Refusal("there is no such file")
    assert isinstance(read(long, SETTINGS), Refusal)


@pytest.mark.parametrize("name", ["y" * 300, "a\0b"])
def test_a_path_that_no_system_can_have_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"there is no such file|File name too long"):
        list_files([tmp_path / name])
    write(tmp_path / "x.dcm")
    if "\0" in name:
        with pytest.raises(UserError, match="there is no such file"):
            list_files([tmp_path, tmp_path / name])


def test_a_link_in_a_folder_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.dcm").symlink_to("cache/0a1b")
    os.mkfifo(tmp_path / "pipe.dcm")  # which would keep its reader waiting
    (gone,) = list_files([tmp_path]).files
    assert read(gone, SETTINGS) == Refusal("there is no such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path) -> None:
    hidden = write(tmp_path / "inner" / "x.dcm").parent
    hidden.chmod(0)
    try:
        with pytest.raises(UserError, match=r"inner: cannot be read \(Permission denied\)"):
            list_files([tmp_path])
    finally:
        hidden.chmod(0o700)


def test_a_dicomdir_gives_the_files_that_it_names(tmp_path: Path) -> None:
    files = FileSet()
    for seed in (1, 2):
        image = pydicom.dcmread(write(tmp_path / f"{seed}.dcm", draw_phantom_dicom(seed=seed)))
        image.StudyTime, image.StudyID = "120000", "1"  # which a DICOMDIR needs
        image.SeriesNumber, image.InstanceNumber = 1, seed
        files.add(image)
    files.write(tmp_path / "medium")
    listing = list_files([tmp_path / "medium" / "DICOMDIR"])
    assert len(listing.files) == 2
    assert all(isinstance(read(file, SETTINGS), Reading) for file in listing.files)


def write_directory(path: Path, *parts: str) -> Path:
    """A DICOMDIR that names one image, wherever that is."""
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = list(parts)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    dataset.DirectoryRecordSequence = [record]
    path.parent.mkdir(parents=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("parts", [("..", "secret.dcm"), ("IMAGES", "..", "..", "secret.dcm")])
def test_a_dicomdir_cannot_lead_out_of_its_folder(tmp_path: Path, parts: tuple[str, ...]) -> None:
    write(tmp_path / "secret.dcm")
    directory = write_directory(tmp_path / "medium" / "DICOMDIR", *parts)
    with pytest.raises(UserError, match="outside its folder"):
        list_files([directory])


def test_a_dicomdir_names_a_missing_file_and_others_none(tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "medium" / "DICOMDIR", "IMAGES", "1")
    (missing,) = list_files([directory]).files
    assert read(missing, SETTINGS) == Refusal("there is no such file")
    broken = write(tmp_path / "other" / "DICOMDIR", b"no DICOM")
    with pytest.raises(UserError, match="it is not a DICOM file"):
        list_files([broken])


def test_a_dicomdir_may_name_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "medium" / "DICOMDIR", "1")
    (tmp_path / "medium" / "1").symlink_to("1")
    (loop,) = list_files([directory]).files
    found = read(loop, SETTINGS)
    assert isinstance(found, Refusal)
    assert "the file cannot be opened" in found.reason


def test_what_is_read_knows_its_ids(tmp_path: Path) -> None:
    content = draw_phantom_dicom(seed=1)
    header = pydicom.dcmread(write(tmp_path / "a.dcm", content))
    for source in (content, tmp_path / "a.dcm"):
        found = read(source, SETTINGS)
        assert isinstance(found, Reading)
        assert found.identity.instance == header.SOPInstanceUID
        assert found.identity.study == header.StudyInstanceUID
        assert found.identity.series == header.SeriesInstanceUID
        assert found.identity.sop_class == header.SOPClassUID
        assert found.identity.patient == header.PatientID


def test_a_fault_of_this_program_says_its_kind_and_not_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("Doe^Jane")

    monkeypatch.setattr("mammo.serving.intake.prepare", fail)
    found = read(b"", SETTINGS)
    assert isinstance(found, Refusal)
    assert found.ours
    assert "KeyError" in found.reason
    assert "Doe" not in found.reason
