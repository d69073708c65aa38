"""What of a source's header goes into the results: what the standard asks for, and nothing else."""

import random
from datetime import date, timedelta
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mammo.base.errors import UserError
from mammo.dicom_results.source import COPIED
from mammo.dicom_results.write import Kind, write_results
from tests.support.findings import make_finding, sources_of

TEXT = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
READ_BY_MEANING = {"SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "TransferSyntaxUID"}
"""UIDs that references are made of."""

KINDS: tuple[Kind, ...] = ("cad", "1500")


def mark_everything(file: Path) -> tuple[Dataset, dict[str, bytes]]:
    """A mammogram whose every element of text, date or UID says something of its own.

    Returns:
        The data set, and by keyword what it says.
    """
    dataset = pydicom.dcmread(file)
    marks: dict[str, bytes] = {}
    for number, (tag, entry) in enumerate(sorted(DicomDictionary.items())):
        keyword, vr = keyword_for_tag(tag), entry[0]
        if tag >> 16 in (0, 2, 4) or not keyword or keyword in READ_BY_MEANING:
            continue
        if vr in TEXT:
            mark = f"Q{number:05d}Z"
        elif vr == "DA":
            mark = f"{date(1900, 1, 1) + timedelta(days=number):%Y%m%d}"
        elif vr == "UI":
            mark = f"1.2.999.{number}.7"
        else:
            continue
        dataset.add_new(tag, vr, mark)
        marks[keyword] = mark.encode()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "399162004", "SCT", "QmeanZ"
    modifier = Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator = "R-102D6", "SRT"
    modifier.CodeMeaning = "QmodifierZ"
    item.ViewModifierCodeSequence = Sequence([modifier])
    dataset.ViewCodeSequence = Sequence([item])
    dataset.private_block(0x0011, "QprivateZ", create=True).add_new(1, "LO", "QsecretZ")
    marks |= {name: name.encode() for name in ("QmeanZ", "QmodifierZ", "QprivateZ", "QsecretZ")}
    return dataset, marks


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_header_is_copied_but_patient_and_study(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    dataset, marks = mark_everything(views[0])
    source = tmp_path / "source.dcm"
    dataset.save_as(source)
    assert len(marks) > 900  # elements of the standard
    exam = make_finding([source], [0.9])
    folder = write_results(exam, sources_of(exam), tmp_path / "out", kind)
    written = [path.read_bytes() for path in folder.iterdir()]
    assert len(written) == 2
    for content in written:
        found = {name for name, mark in marks.items() if mark in content}
        assert found == set(COPIED) - {"PatientSex", "StudyTime"}  # neither text, date nor UID


@pytest.mark.parametrize("kind", KINDS)
def test_patient_and_study_are_those_of_the_source(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    source = pydicom.dcmread(views[0], stop_before_pixels=True)
    exam = make_finding(views, [0.9] * 4)
    for path in write_results(exam, sources_of(exam), tmp_path, kind).iterdir():
        result = pydicom.dcmread(path)
        for keyword in COPIED:
            assert result[keyword].value == source[keyword].value, keyword
        assert result.SeriesInstanceUID != source.SeriesInstanceUID


def reheaded(source: Path, target: Path, **values: object) -> Path:
    """A copy of a file with other values in its header; None takes an element out."""
    dataset = pydicom.dcmread(source)
    for keyword, value in values.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


names = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\\=^"), max_size=20
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, number=names, sex=st.sampled_from(["F", "M", "O", "", "X", "female"]))
def test_any_name_survives_in_any_script(
    views: list[Path], tmp_path: Path, name: str, number: str, sex: str
) -> None:
    source = reheaded(
        views[0],
        tmp_path / "source.dcm",
        SpecificCharacterSet="ISO_IR 192",
        PatientName=name,
        AccessionNumber=number[:16],
        PatientSex=sex,
    )
    exam = make_finding([source], [0.1])
    (path,) = write_results(exam, sources_of(exam), tmp_path / "out").iterdir()
    result, read = pydicom.dcmread(path), pydicom.dcmread(source)
    assert str(result.PatientName) == str(read.PatientName).strip()
    assert result.AccessionNumber == read.AccessionNumber.strip()
    assert result.PatientSex == (sex if sex in ("F", "M", "O") else "")


def test_a_name_in_another_character_set_is_the_same_name(
    views: list[Path], tmp_path: Path
) -> None:
    source = reheaded(
        views[0],
        tmp_path / "source.dcm",
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
    )
    exam = make_finding([source], [0.9])
    for path in write_results(exam, sources_of(exam), tmp_path / "out").iterdir():
        result = pydicom.dcmread(path)
        assert str(result.PatientName) == "Yamada^Tarou=山田^太郎"
        assert result.SpecificCharacterSet == "ISO_IR 192"


def test_values_that_are_none_are_left_empty(views: list[Path], tmp_path: Path) -> None:
    source = reheaded(
        views[0],
        tmp_path / "source.dcm",
        PatientBirthDate="19701332",
        StudyTime="quarter to",
        PatientOrientation=["CC"],
        PatientName=None,
        AccessionNumber=None,
        ReferringPhysicianName=None,
    )
    exam = make_finding([source], [0.9])
    for path in write_results(exam, sources_of(exam), tmp_path / "out").iterdir():
        result = pydicom.dcmread(path)
        for keyword in ("PatientBirthDate", "StudyTime", "PatientName", "AccessionNumber"):
            assert not result[keyword].value, keyword


def test_an_exam_without_a_date_gets_the_date_that_says_nothing(
    views: list[Path], tmp_path: Path
) -> None:
    source = reheaded(views[0], tmp_path / "source.dcm", StudyDate=None)
    exam = make_finding([source], [0.1])
    (path,) = write_results(exam, sources_of(exam), tmp_path / "out").iterdir()
    result = pydicom.dcmread(path)
    assert result.StudyDate == ""
    assert (result.ContentDate, result.ContentTime) == ("19000101", "000000")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", [None, "1.2/../../etc", "1." + "2" * 70])
def test_a_file_that_nothing_can_refer_to_is_named(
    views: list[Path], tmp_path: Path, keyword: str, value: str | None
) -> None:
    source = reheaded(views[0], tmp_path / "source.dcm", **{keyword: value})
    exam = make_finding([source], [0.9])
    with pytest.raises(UserError, match=rf"source\.dcm: its header has no usable {keyword}"):
        write_results(exam, sources_of(exam), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_only_the_files_head_states_is_taken_from_there(
    views: list[Path], tmp_path: Path
) -> None:
    """As in the origin's data."""
    source = reheaded(views[0], tmp_path / "source.dcm", SOPClassUID=None)
    exam = make_finding([source], [0.1])
    (path,) = write_results(exam, sources_of(exam), tmp_path / "out").iterdir()
    (study,) = pydicom.dcmread(path).CurrentRequestedProcedureEvidenceSequence
    image = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"


def test_a_damaged_header_gives_a_report_or_a_sentence_never_another_error(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views[:1], [0.1])
    whole = views[0].read_bytes()
    end = whole.find(b"\xe0\x7f\x10\x00")  # the pixels
    chance = random.Random(5)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 4, 20])):
            at = chance.randrange(132, end)
            new = chance.randbytes(chance.randrange(0, 9))
            damaged[at : at + chance.randrange(0, 9)] = new
        try:
            write_results(exam, {1: bytes(damaged)}, tmp_path)
            outcomes.add("a report")
        except UserError as error:
            outcomes.add(f"{error}" if "\n" in f"{error}" else "a sentence")
    assert outcomes == {"a report", "a sentence"}
