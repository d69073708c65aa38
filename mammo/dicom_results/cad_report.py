"""The Mammography CAD SR of an exam: TID 4000 and the templates below it (PS3.16 annex A).

PS3.17 annex E shows such reports. What the model does is said in their words: it selects a
region of each image (one detection), and judges each breast and the exam (two analyses). A
suspicious view has a single image finding; an exam without one has a report too, which says that
nothing was found. An image that could not be read stands in the library too, and among what failed.
"""

from collections.abc import Sequence as Many

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MammographyCADSRStorage

from mammo.dicom_results import codes
from mammo.dicom_results.content_items import (
    Related,
    by_reference,
    code,
    container,
    contains,
    date,
    has_acq_context,
    has_concept_mod,
    has_properties,
    image,
    inferred_from,
    number,
    point,
    polygon,
    selected_from,
    text,
    time,
)
from mammo.dicom_results.objects import (
    Moment,
    describe_version,
    list_evidence,
    list_parameters,
    make_series_uid,
    percent,
    start_object,
)
from mammo.dicom_results.source import Exam, Film, Image, Study
from mammo.dicom_results.suspicion import (
    describe_exam,
    describe_view,
    find_outline,
    list_positive,
)

SERIES_NUMBER = 9001

_LIBRARY = (1, 2)
"""Where the image library stands: the second item of the root."""


def build_cad_report(exam: Exam, moment: Moment) -> Dataset:
    """Build the report. Its SOPInstanceUID is still missing.

    Args:
        exam: with the finding to report.
        moment: when the report was made.
    """
    series = make_series_uid(exam, "Mammography CAD SR"), SERIES_NUMBER
    dataset = start_object(exam, moment, MammographyCADSRStorage, "SR", series)
    add_document(dataset, exam)
    dataset.update(_root(exam))
    return dataset


def add_document(dataset: Dataset, exam: Exam) -> None:
    """The attributes of a report that a machine wrote and nobody signed (PS3.3 C.17.1, C.17.2)."""
    dataset.ReferencedPerformedProcedureStepSequence = Sequence()
    dataset.PerformedProcedureCodeSequence = Sequence()
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.CurrentRequestedProcedureEvidenceSequence = list_evidence(exam)


def _root(exam: Exam) -> Dataset:
    """TID 4000. The order of the items counts, and `_LIBRARY` is the library's position."""
    entries = [_library_entry(exam.study, image) for image in exam.images]
    library = container(codes.IMAGE_LIBRARY, contains(*entries))
    detections = [(codes.DETECTION_PERFORMED, codes.SELECTED_REGION)]
    analyses = [
        (codes.ANALYSIS_PERFORMED, codes.ANALYSIS_OF_A_BREAST),
        (codes.ANALYSIS_PERFORMED, codes.ANALYSIS_OF_THE_EXAM),
    ]
    return container(
        codes.MAMMOGRAPHY_CAD_REPORT,
        has_concept_mod(code(codes.LANGUAGE, codes.ENGLISH)),
        contains(library),
        contains(_overall_impression(exam)),
        contains(
            _summary(
                exam,
                codes.SUMMARY_OF_DETECTIONS,
                (codes.SUCCESSFUL_DETECTIONS, codes.FAILED_DETECTIONS),
                detections,
            )
        ),
        contains(
            _summary(
                exam,
                codes.SUMMARY_OF_ANALYSES,
                (codes.SUCCESSFUL_ANALYSES, codes.FAILED_ANALYSES),
                analyses,
            )
        ),
        template="4000",
    )


def _library_entry(study: Study, shown: Image) -> Dataset:
    """TID 4020."""
    facts = list[Dataset]()
    if shown.laterality is not None:
        facts.append(code(codes.IMAGE_LATERALITY, codes.BREASTS[shown.laterality]))
    if shown.view in codes.VIEWS:
        modifiers = [code(codes.IMAGE_VIEW_MODIFIER, modifier) for modifier in shown.modifiers]
        view = codes.VIEWS[shown.view]
        facts.append(code(codes.IMAGE_VIEW, view, has_concept_mod(*modifiers)))
    if shown.orientation is not None:
        facts.append(text(codes.ORIENTATION_OF_ROWS, shown.orientation[0]))
        facts.append(text(codes.ORIENTATION_OF_COLUMNS, shown.orientation[1]))
    if study.date:
        facts.append(date(codes.STUDY_DATE, study.date))
    if study.time:
        facts.append(time(codes.STUDY_TIME, study.time))
    if shown.spacing is not None:
        across, down = shown.spacing
        facts.append(number(codes.HORIZONTAL_SPACING, f"{across:.6g}", codes.MICROMETER))
        facts.append(number(codes.VERTICAL_SPACING, f"{down:.6g}", codes.MICROMETER))
    if shown.rows is not None and shown.columns is not None:
        facts.append(number(codes.ROWS, f"{shown.rows}", codes.PIXELS))
        facts.append(number(codes.COLUMNS, f"{shown.columns}", codes.PIXELS))
    return image(shown.sop_class, shown.instance, has_acq_context(*facts))


def _overall_impression(exam: Exam) -> Dataset:
    """TID 4001 with 4002, and 4003 for each positive breast."""
    positive = list_positive(exam)
    return code(
        codes.FINDINGS_SUMMARY,
        _judge(exam, found=bool(positive)),
        has_properties(text(codes.IMPRESSION, describe_exam(exam))),
        _algorithm(exam),
        inferred_from(*(_impression(exam, films) for films in positive)),
    )


def _judge(exam: Exam, found: bool) -> codes.Code:
    """How it went and what came of it (CID 6047)."""
    if not exam.films:
        return codes.NOTHING_SUCCEEDED
    if exam.unread:
        return codes.INCOMPLETE_WITH_FINDINGS if found else codes.INCOMPLETE_WITHOUT_FINDINGS
    return codes.WITH_FINDINGS if found else codes.WITHOUT_FINDINGS


def _impression(exam: Exam, films: Many[Film]) -> Dataset:
    """TID 4003. No properties: the class lets a container have none (PS3.3 A.35.5.3.1.3)."""
    return container(
        codes.INDIVIDUAL_IMPRESSION,
        has_concept_mod(code(codes.RENDERING_INTENT, codes.PRESENTATION_REQUIRED)),
        contains(*(_single_image_finding(exam, film) for film in films)),
    )


def _single_image_finding(exam: Exam, film: Film) -> Dataset:
    """TID 4006 with 4021 and 4013.

    The finding is a selected region: the model does not tell a mass from calcifications, and a
    code for one of them would say so. TID 4006 lets a selected region have no "Probability of
    cancer" (row 7), so that the probability is the certainty of the finding, and said in words.
    """
    center, corners = find_outline(film)
    shown_in = exam.films.index(film)
    return code(
        codes.SINGLE_IMAGE_FINDING,
        codes.SELECTED_REGION,
        has_concept_mod(code(codes.RENDERING_INTENT, codes.PRESENTATION_REQUIRED)),
        _algorithm(exam),
        has_properties(
            number(codes.CERTAINTY, percent(film.finding.probability), codes.PERCENT),
            point(codes.CENTER, center, selected_from(_in_library(shown_in))),
            polygon(codes.OUTLINE, corners, selected_from(_in_library(shown_in))),
            text(codes.REGION_DESCRIPTION, describe_view(film)),
        ),
    )


def _summary(
    exam: Exam,
    name: codes.Code,
    headings: tuple[codes.Code, codes.Code],
    performed: Many[tuple[codes.Code, codes.Code]],
) -> Dataset:
    """TID 4015 or 4016: what was done with the images that were read, and failed at the others.

    Args:
        exam: the exam.
        name: of the summary.
        headings: of what succeeded, and of what failed.
        performed: what was done, by name and value.
    """
    read = range(len(exam.films))
    unread = range(len(exam.films), len(exam.images))
    status = codes.SUCCEEDED if not unread else codes.PARTIALLY_SUCCEEDED if read else codes.FAILED
    lists = [
        container(heading, contains(*(_performed(exam, *what, positions) for what in performed)))
        for heading, positions in zip(headings, (read, unread), strict=True)
        if positions
    ]
    return code(name, status, inferred_from(*lists))


def _performed(exam: Exam, name: codes.Code, what: codes.Code, positions: Many[int]) -> Dataset:
    """TID 4017 or 4018: on the images of the exam that have these positions in the library."""
    images = [_in_library(position) for position in positions]
    parameters = [text(codes.ALGORITHM_PARAMETERS, line) for line in list_parameters(exam)]
    return code(name, what, _algorithm(exam), has_properties(*parameters, *images))


def _algorithm(exam: Exam) -> Related:
    """TID 4019, but for the parameters, which stand where the algorithm is said to have run."""
    model = exam.model
    return has_properties(
        text(codes.ALGORITHM_NAME, model.name),
        text(codes.ALGORITHM_VERSION, describe_version(model)),
    )


def _in_library(position: int) -> Dataset:
    """A reference to an image by its position among the exam's, from 0."""
    return by_reference((*_LIBRARY, position + 1))
