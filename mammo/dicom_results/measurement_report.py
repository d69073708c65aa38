"""The finding as a TID 1500 report, which OHIF and other viewers show: built by highdicom.

Each suspicious view is a planar region of interest with its probability (TID 1410); so is each
other view, by the box of the breast in it and without a finding. Whole images (TID 1501) would say
the same; but OHIF 3.13 fails at a report in which a measurement has no coordinates. Images that
could not be read are in the library, and named by the report's evaluations.
"""

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from mammo.dicom_results import codes
from mammo.dicom_results.content_items import (
    code,
    container,
    contains,
    has_acq_context,
    image,
    text,
)
from mammo.dicom_results.objects import (
    MANUFACTURER,
    Moment,
    add_device,
    add_patient_and_study,
    describe_exactly,
    describe_version,
    list_evidence,
    list_parameters,
    make_series_uid,
    make_uid,
    percent,
)
from mammo.dicom_results.source import COPIED, Exam, Film, Image
from mammo.dicom_results.suspicion import (
    Point,
    corners_of,
    describe_unread,
    find_outline,
    list_positive,
)
from mammo.serving.finding import NOTICE

SERIES_NUMBER = 9001

_UNKNOWN = "2.25.0"
"""highdicom asks for a UID; ours comes when all is said."""


def build_measurement_report(exam: Exam, moment: Moment) -> Dataset:
    """Build the report. Its SOPInstanceUID is still to be set.

    Args:
        exam: with the finding to report.
        moment: when the report was made.
    """
    suspicious = {film.image.instance for films in list_positive(exam) for film in films}
    content = MeasurementReport(
        observation_context=_observer(exam),
        procedure_reported=standard.SCT.ImagingProcedure,  # the closest in CID 100
        imaging_measurements=[
            _region(exam, film) if film.image.instance in suspicious else _view(exam, film)
            for film in exam.films
        ]
        or [_failure(exam, unread) for unread in exam.unread],  # the list must not be empty
        title=standard.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            _concept(codes.ENGLISH)
        ),
    )
    report = ComprehensiveSR(
        evidence=[_as_evidence(exam, shown) for shown in exam.images],
        content=content,
        series_instance_uid=make_series_uid(exam, "Measurement Report"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=_UNKNOWN,
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        content_date=moment.date,
        content_time=moment.time,
    )
    # highdicom has no parameter for evaluations of the whole, and wants more of an image than is
    # there.
    *before, measurements = report.ContentSequence
    report.ContentSequence = [*before, _library(exam), measurements, *_evaluations(exam)]
    # highdicom reads the clock for these, and has the series in an order of chance.
    report.CurrentRequestedProcedureEvidenceSequence = list(list_evidence(exam))
    del report.InstanceCreationDate, report.InstanceCreationTime
    del report.ContributingEquipmentSequence  # highdicom itself, and the time
    add_patient_and_study(report, exam.study)
    add_device(report, exam)
    return report


def _observer(exam: Exam) -> ObservationContext:
    """TID 1001: the model is the observer."""
    model = exam.model
    device = DeviceObserverIdentifyingAttributes(
        uid=make_uid("device", describe_exactly(model)),
        name=f"{MANUFACTURER}. {NOTICE}",
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
    )
    return ObservationContext(
        ObserverContext(observer_type=standard.DCM.Device, observer_identifying_attributes=device)
    )


def _region(exam: Exam, film: Film) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410, with the outline of the hot region."""
    _, corners = find_outline(film)
    return _roi(exam, film, "suspicious region", corners, codes.LESION)


def _view(exam: Exam, film: Film) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410, with the breast's box, of which nothing is found."""
    return _roi(exam, film, "view without suspicion", corners_of(film.finding.box), None)


def _roi(
    exam: Exam, film: Film, what: str, corners: Sequence[Point], found: codes.Code | None
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([*corners, corners[0]], np.float64),
        source_image=SourceImageForRegion(film.image.sop_class, film.image.instance),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(exam, film.image, what),
        referenced_region=region,
        finding_type=None if found is None else _concept(found),
        algorithm_id=_algorithm(exam),
        finding_sites=_sites(film.image),
        measurements=[_probability(film)],
    )


def _failure(exam: Exam, unread: Image) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501, of an image that could not be read: it has no measurement."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(exam, unread, "view that could not be read"),
        algorithm_id=_algorithm(exam),
        finding_sites=_sites(unread),
        source_images=[_as_source(unread)],
    )


def _library(exam: Exam) -> Dataset:
    """TID 1600: all images of the exam."""
    modality = has_acq_context(code(codes.MODALITY, codes.MAMMOGRAPHY))
    images = [image(shown.sop_class, shown.instance) for shown in exam.images]
    group = container(codes.IMAGE_LIBRARY_GROUP, modality, contains(*images))
    (library,) = contains(container(codes.IMAGE_LIBRARY, contains(group)))
    return library


def _evaluations(exam: Exam) -> list[Dataset]:
    """TID 1500 from row 12 on: that the report is not on all images, if so."""
    if not exam.unread:
        return []
    status = codes.PARTIALLY_SUCCEEDED if exam.films else codes.FAILED
    return contains(
        container(
            codes.QUALITATIVE_EVALUATIONS,
            contains(code(codes.SUMMARY_OF_DETECTIONS, status)),
            contains(text(codes.COMMENT, " ".join([NOTICE, *describe_unread(exam)]))),
        )
    )


def _probability(film: Film) -> Measurement:
    return Measurement(
        name=_concept(codes.PROBABILITY_OF_CANCER),
        value=float(percent(film.finding.probability)),
        unit=_concept(codes.PERCENT),
    )


def _tracking(exam: Exam, shown: Image, what: str) -> TrackingIdentifier:
    name = " ".join(filter(None, (shown.laterality, shown.view, what)))
    # The same region by the same model is the same finding, wherever it is reported.
    uid = make_uid(what, shown.instance, describe_exactly(exam.model))
    return TrackingIdentifier(uid=uid, identifier=name)


def _sites(shown: Image) -> list[FindingSite]:
    side = shown.laterality
    laterality = None if side is None else _concept(codes.SIDES[side])
    return [FindingSite(_concept(codes.BREAST), laterality)]


def _as_source(shown: Image) -> SourceImageForMeasurementGroup:
    return SourceImageForMeasurementGroup(shown.sop_class, shown.instance)


def _algorithm(exam: Exam) -> AlgorithmIdentification:
    model = exam.model
    return AlgorithmIdentification(
        name=model.name, version=describe_version(model), parameters=list_parameters(exam)
    )


def _concept(meant: codes.Code) -> CodedConcept:
    return CodedConcept(*meant)


def _as_evidence(exam: Exam, shown: Image) -> Dataset:
    """An image as highdicom wants it, so that it can copy no more than we read.

    Nor the patient's name, which it quotes in warnings.
    """
    evidence = Dataset()
    evidence.SOPClassUID = shown.sop_class
    evidence.SOPInstanceUID = shown.instance
    evidence.SeriesInstanceUID = shown.series
    evidence.StudyInstanceUID = exam.study.uid
    evidence.Modality = "MG"
    evidence.Rows = shown.rows
    evidence.Columns = shown.columns
    for keyword in COPIED:
        if keyword not in evidence:
            setattr(evidence, keyword, "")
    return evidence
