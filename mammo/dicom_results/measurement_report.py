"""The finding as a TID 1500 report, which OHIF and other viewers show: built by highdicom.

Each suspicious view is a planar region of interest with its probability (TID 1410); each other view
is a measurement without a region (TID 1501), so that an exam without findings has a report too.
"""

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
from mammo.dicom_results.source import COPIED, Exam, Film
from mammo.dicom_results.suspicion import find_outline, list_positive
from mammo.serving.finding import NOTICE

SERIES_NUMBER = 9001

_UNKNOWN = "2.25.0"
"""highdicom asks for a UID; ours comes when all is said."""


def build_measurement_report(exam: Exam, moment: Moment) -> Dataset:
    """Build the report. Its SOPInstanceUID is still to be set.

    Args:
        exam: with the finding to report; its model has an operating point.
        moment: when the report was made.
    """
    suspicious = {film.instance for films in list_positive(exam) for film in films}
    content = MeasurementReport(
        observation_context=_observer(exam),
        procedure_reported=standard.SCT.ImagingProcedure,  # the closest in CID 100
        imaging_measurements=[
            _region(exam, film) if film.instance in suspicious else _view(exam, film)
            for film in exam.films
        ],
        title=standard.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            _concept(codes.ENGLISH)
        ),
    )
    report = ComprehensiveSR(
        evidence=[_as_evidence(exam, film) for film in exam.films],
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
    # highdicom reads the clock for these, and has the series in an order of chance.
    report.CurrentRequestedProcedureEvidenceSequence = list(list_evidence(exam))
    del report.InstanceCreationDate, report.InstanceCreationTime
    del report.ContributingEquipmentSequence  # highdicom itself, and the time
    add_patient_and_study(report, exam.study)
    add_device(report, exam)
    return report


def _observer(exam: Exam) -> ObservationContext:
    """TID 1001: the model is the observer."""
    model = exam.finding.model
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
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([*corners, corners[0]], np.float64),
        source_image=SourceImageForRegion(film.sop_class, film.instance),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(exam, film, "suspicious region"),
        referenced_region=region,
        finding_type=_concept(codes.LESION),
        algorithm_id=_algorithm(exam),
        finding_sites=_sites(film),
        measurements=[_probability(film)],
    )


def _view(exam: Exam, film: Film) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501, of the whole image."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(exam, film, "view without suspicion"),
        algorithm_id=_algorithm(exam),
        finding_sites=_sites(film),
        measurements=[_probability(film)],
        source_images=[SourceImageForMeasurementGroup(film.sop_class, film.instance)],
    )


def _probability(film: Film) -> Measurement:
    return Measurement(
        name=_concept(codes.PROBABILITY_OF_CANCER),
        value=float(percent(film.finding.probability)),
        unit=_concept(codes.PERCENT),
    )


def _tracking(exam: Exam, film: Film, what: str) -> TrackingIdentifier:
    finding = film.finding
    name = " ".join(filter(None, (finding.laterality, finding.view, what)))
    # The same place by the same model is the same finding, wherever it is reported.
    uid = make_uid(what, film.instance, describe_exactly(exam.finding.model))
    return TrackingIdentifier(uid=uid, identifier=name)


def _sites(film: Film) -> list[FindingSite]:
    side = film.finding.laterality
    laterality = None if side is None else _concept(codes.SIDES[side])
    return [FindingSite(_concept(codes.BREAST), laterality)]


def _algorithm(exam: Exam) -> AlgorithmIdentification:
    model = exam.finding.model
    return AlgorithmIdentification(
        name=model.name, version=describe_version(model), parameters=list_parameters(exam)
    )


def _concept(code: codes.Code) -> CodedConcept:
    return CodedConcept(*code)


def _as_evidence(exam: Exam, film: Film) -> Dataset:
    """An image as highdicom wants it, so that it can copy no more than we read.

    Nor the patient's name, which it quotes in warnings.
    """
    image = Dataset()
    image.SOPClassUID = film.sop_class
    image.SOPInstanceUID = film.instance
    image.SeriesInstanceUID = film.series
    image.StudyInstanceUID = exam.study.uid
    image.Modality = "MG"
    image.Rows = film.finding.rows
    image.Columns = film.finding.columns
    for keyword in COPIED:
        if keyword not in image:
            setattr(image, keyword, "")
    return image
