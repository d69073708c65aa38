"""What the reports say of images that could not be read, so that nobody takes them for complete."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from mammo.base.errors import UserError
from mammo.dicom_results.source import UnreadMammogram, group_unread, strip_pixels
from mammo.dicom_results.write import REPORTS, Kind, write_results, write_unread
from mammo.serving.finding import NOTICE
from mammo.serving.intake import Refusal, read
from tests.mammo.dicom_results.test_reports import (
    evidence_of,
    follow,
    instance_of,
    items_of,
    named,
    value_of,
)
from tests.support.findings import (
    MODEL,
    POINT,
    SETTINGS,
    cut_short,
    make_finding,
    sources_of,
    spoil,
)

KINDS: tuple[Kind, ...] = ("cad", "1500")


@pytest.fixture
def damaged(views: list[Path], tmp_path: Path) -> list[Path]:
    """The woman's views, each cut short in its pixel data."""
    return [cut_short(view, tmp_path / view.name) for view in views]


def unread_of(files: list[Path]) -> list[UnreadMammogram]:
    (exam,) = group_unread(files).values()
    return exam


def report_on(views: list[Path], lost: list[Path], folder: Path, kind: Kind = "cad") -> Dataset:
    """The report on views that were read, all of them suspicious, and on others that were not."""
    exam = make_finding(views, [0.9] * len(views))
    unread = unread_of(lost)
    assert {one.exam for one in unread} == {exam.key}
    path = write_results(exam, sources_of(exam), folder, kind, unread=unread)
    assert len(list(path.glob("capture-*"))) == len(views)  # of what was read only
    return pydicom.dcmread(path / REPORTS[kind])


def report_on_nothing(lost: list[Path], folder: Path, kind: Kind = "cad") -> Dataset:
    path = write_unread(unread_of(lost), MODEL, POINT, "max", folder, kind)
    (file,) = path.iterdir()
    assert file.name == REPORTS[kind]
    return pydicom.dcmread(file)


def instances(files: list[Path]) -> set[str]:
    return {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}


def under(report: Dataset, name: str) -> set[str]:
    """The images that a heading's items were done on."""
    return {
        instance_of(follow(report, item.ReferencedContentItemIdentifier))
        for heading in named(report, name)
        for item in items_of(heading)
        if "ReferencedContentItemIdentifier" in item
    }


def test_a_cad_report_says_what_failed_and_on_which_images(
    views: list[Path], damaged: list[Path], tmp_path: Path
) -> None:
    report = report_on(views[:3], damaged[3:], tmp_path / "out")
    (summary,) = named(report, "CAD Processing and Findings Summary")
    assert value_of(summary) == "Not all algorithms succeeded; with findings"
    for what in ("Detections", "Analyses"):
        assert value_of(*named(report, f"Summary of {what}")) == "Partially Succeeded"
        assert under(report, f"Successful {what}") == instances(views[:3])
        assert under(report, f"Failed {what}") == instances(views[3:])
    (entry,) = report.ContentSequence[1].ContentSequence[3:]
    header = pydicom.dcmread(views[3], stop_before_pixels=True)
    facts = {fact.ConceptNameCodeSequence[0].CodeMeaning: fact for fact in entry.ContentSequence}
    side = {"L": "Left breast", "R": "Right breast"}[header.ImageLaterality]
    assert value_of(facts["Image Laterality"]) == side
    view = facts["Image View"].ConceptCodeSequence[0].CodeValue
    assert view == header.ViewCodeSequence[0].CodeValue
    assert facts["Pixel Data Rows"].MeasuredValueSequence[0].NumericValue == header.Rows
    said = named(report, "Impression Description")[0].TextValue
    lost = f"{header.ImageLaterality} {header.ViewPosition}"
    assert said.startswith(f"{NOTICE} Incomplete: 1 image could not be read ({lost}).")


def test_an_exam_without_findings_is_not_said_to_be_free_of_them_where_a_view_is_missing(
    views: list[Path], damaged: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views[:2], [0.1, 0.1])
    path = write_results(exam, sources_of(exam), tmp_path, unread=unread_of(damaged[2:]))
    report = pydicom.dcmread(path / REPORTS["cad"])
    (summary,) = named(report, "CAD Processing and Findings Summary")
    assert value_of(summary) == "Not all algorithms succeeded; without findings"
    (impression,) = named(report, "Impression Description")
    assert "2 images could not be read" in impression.TextValue


def test_an_exam_of_which_nothing_was_read_has_a_report_that_says_so(
    damaged: list[Path], tmp_path: Path
) -> None:
    report = report_on_nothing(damaged, tmp_path)
    (summary,) = named(report, "CAD Processing and Findings Summary")
    assert value_of(summary) == "No algorithms succeeded; without findings"
    for what in ("Detections", "Analyses"):
        assert value_of(*named(report, f"Summary of {what}")) == "Failed"
        assert named(report, f"Successful {what}") == []
        assert under(report, f"Failed {what}") == instances(damaged)
    said = named(report, "Impression Description")[0].TextValue
    assert "No image of this exam could be read" in said
    assert "probability" not in said


def test_a_measurement_report_names_the_views_and_measures_nothing_in_them(
    views: list[Path], damaged: list[Path], tmp_path: Path
) -> None:
    report = report_on(views[:3], damaged[3:], tmp_path / "out", "1500")
    measured = {
        instance_of(item)
        for group in named(report, "Measurement Group")
        for item in items_of(group)
        if item.get("ValueType") == "IMAGE"
    }
    assert measured == instances(views[:3])
    (library,) = named(report, "Image Library")
    entries = (item for item in items_of(library) if item.get("ValueType") == "IMAGE")
    assert {instance_of(item) for item in entries} == instances(views)
    (evaluations,) = named(report, "Qualitative Evaluations")
    assert value_of(*named(evaluations, "Summary of Detections")) == "Partially Succeeded"
    (comment,) = named(evaluations, "Comment")
    assert comment.TextValue.startswith(f"{NOTICE} Incomplete: 1 image could not be read (")


def test_a_measurement_report_on_nothing_measures_nothing(
    damaged: list[Path], tmp_path: Path
) -> None:
    report = report_on_nothing(damaged, tmp_path, "1500")
    assert len(named(report, "Measurement Group")) == len(damaged)
    assert named(report, "Probability of cancer") == []
    (evaluations,) = named(report, "Qualitative Evaluations")
    assert value_of(*named(evaluations, "Summary of Detections")) == "Failed"
    assert "No image of this exam" in named(evaluations, "Comment")[0].TextValue


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_exam_has_no_word_of_failure(views: list[Path], tmp_path: Path, kind: Kind) -> None:
    exam = make_finding(views, [0.9] * 4)
    # A file that was read after all, such as a copy of one, is not missing.
    folder = write_results(exam, sources_of(exam), tmp_path, kind, unread=unread_of(views))
    report = pydicom.dcmread(folder / REPORTS[kind])
    assert named(report, "Failed Detections") == named(report, "Qualitative Evaluations") == []
    plain = write_results(exam, sources_of(exam), tmp_path / "plain", kind)
    assert pydicom.dcmread(plain / REPORTS[kind]) == report


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_that_could_not_be_read_are_evidence_too(
    views: list[Path], damaged: list[Path], tmp_path: Path, kind: Kind
) -> None:
    for report in (
        report_on(views[:1], damaged[1:], tmp_path / "some", kind),
        report_on_nothing(damaged, tmp_path / "none", kind),
    ):
        listed = {uid for images in evidence_of(report).values() for _, uid in images}
        assert listed == instances(views)
        assert report.StudyInstanceUID == pydicom.dcmread(views[0]).StudyInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_on_nothing_has_the_same_bytes_each_time_and_from_headers_alone(
    damaged: list[Path], tmp_path: Path, kind: Kind
) -> None:
    first = report_on_nothing(damaged, tmp_path / "first", kind)
    headers = []
    for file in damaged:
        headers.append(tmp_path / f"header-{file.name}")
        headers[-1].write_bytes(strip_pixels(file, unread=True))
        assert headers[-1].stat().st_size < 3000
    second = report_on_nothing(headers, tmp_path / "second", kind)
    assert first == second


def test_what_no_report_can_tell_of_is_left_out(views: list[Path], tmp_path: Path) -> None:
    """No DICOM file; a header that ends too soon; one without a UID; no mammogram."""
    letter = tmp_path / "letter.dcm"
    letter.write_bytes(b"no DICOM")
    torn = tmp_path / "torn.dcm"
    torn.write_bytes(views[0].read_bytes()[:400])
    dataset = pydicom.dcmread(views[1])
    del dataset.SOPInstanceUID
    dataset.save_as(tmp_path / "nameless.dcm")
    other = pydicom.dcmread(views[2])
    other.Modality = "US"
    other.save_as(tmp_path / "other.dcm")
    files = [letter, torn, tmp_path / "nameless.dcm", tmp_path / "other.dcm"]
    assert group_unread([*files, tmp_path / "none.dcm"]) == {}


def test_files_that_are_refused_for_their_pixels_belong_to_their_exams(
    phantoms: list[list[Path]], tmp_path: Path
) -> None:
    """Damaged in another way than by their length."""
    files = []
    for number, woman in enumerate(phantoms[:2]):
        files.append(tmp_path / f"{number}.dcm")
        spoil(pydicom.dcmread(woman[0])).save_as(files[-1])
        assert isinstance(read(files[-1], SETTINGS), Refusal)
    found = group_unread(files)
    assert set(found) == {make_finding(woman[:1], [0.5]).key for woman in phantoms[:2]}


def test_a_file_that_is_gone_is_said_and_nothing_is_written(
    damaged: list[Path], tmp_path: Path
) -> None:
    unread = unread_of(damaged)
    damaged[0].unlink()
    with pytest.raises(UserError, match="there is no such file"):
        write_unread(unread, MODEL, POINT, "max", tmp_path / "out")
    assert not (tmp_path / "out").exists()
