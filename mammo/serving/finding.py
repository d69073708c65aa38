"""What the model finds in an exam: in memory with the ids of its images, as JSON without them.

`exam.schema.json` beside this file describes the JSON; the number in its `$id` is its version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from mammo.base.atomic_files import read_json
from mammo.imaging.geometry import Box
from mammo.serving.identity import Identity

if TYPE_CHECKING:  # it imports torch, and those who read files need none
    from mammo.cropping.find_breast import FoundBy

NOTICE = "Research use only. Not a medical device."
"""Stands in every output."""

Decision = Literal["positive", "negative"]
Point = tuple[float, float]  # (x, y) in pixels of the stored image

_SCHEMA = Path(__file__).with_name("exam.schema.json")


@dataclass(frozen=True)
class Model:
    """Which model it was."""

    name: str  # in the registry, such as mammogram-classifier
    version: int | None  # None: a folder, which no registry has numbered
    snapshot: str | None  # the digest of the snapshot that it was made from
    commit: str | None  # of git: the code that made it
    code: str  # a hash of the code, ours and the libraries' versions, that gave this answer


@dataclass(frozen=True)
class OperatingPoint:
    """From which probability on a breast is called positive: chosen on the validation women."""

    threshold: float  # in [0, 1]; a breast with at least this probability is positive
    beta: float  # of the F-beta that is highest there: the weight of recall
    chosen_on: Literal["validation"] = "validation"


@dataclass(frozen=True)
class Peak:
    """The middle of the hottest spot of a heatmap."""

    x: float  # in pixels of the stored image
    y: float
    heat: float  # there, in (0, 1]: 1 is the highest of the image


@dataclass(frozen=True)
class Region:
    """The hot region around the peak, as a closed polygon."""

    share: float  # in (0, 1]: of the highest heat, which the region has at least
    points: tuple[Point, ...]  # three or more; the last one is joined to the first

    @property
    def box(self) -> Box:
        """The smallest upright box around the polygon, in pixels of the stored image."""
        across, down = zip(*self.points, strict=True)
        return Box(min(across), min(down), max(across), max(down))


@dataclass(frozen=True)
class ImageFinding:
    """What the model finds in one image."""

    number: int  # of the file, from 1, in the order in which the files were given
    source: str | None = field(
        repr=False
    )  # the file's path, as it was given; None: it came as bytes
    identity: Identity  # the ids in its header; they are in no output by default
    laterality: str | None  # L or R
    view: str | None  # CC, MLO or another one of mammo.dicom.view.VIEWS
    rows: int  # pixels of the stored image
    columns: int
    probability: float  # of the target, in [0, 1]
    box: Box  # of the breast, in pixels of the stored image
    found_by: FoundBy
    peak: Peak | None  # None: no part of the image raises the probability, or no heat was asked for
    region: Region | None
    heatmap: bytes | None = field(repr=False)  # PNG: the breast, turned left, under the heat

    @property
    def key(self) -> str:
        """A hash of the SOPInstanceUID: the image's name in files, 16 hexadecimal digits."""
        instance = self.identity.instance
        return hash_ids("image", instance, "" if instance else f"{self.number}")

    @property
    def exam(self) -> str:
        """The key of the exam that it belongs to."""
        return name_exam(self.identity, self.number)


@dataclass(frozen=True)
class BreastFinding:
    """What the model finds in the views of a breast."""

    laterality: str | None  # L or R; None: the header does not say; a breast of one image
    probability: float  # the highest of its images, or their mean, as the model was evaluated
    decision: Decision | None  # None: the model has no operating point
    images: tuple[ImageFinding, ...]


@dataclass(frozen=True)
class ExamFinding:
    """What the model finds in the images of one study of one patient."""

    model: Model
    operating_point: OperatingPoint | None
    aggregate: Literal["max", "mean"]  # of a breast's images
    probability: float  # the highest of its breasts
    decision: Decision | None  # positive if a breast is
    breasts: tuple[BreastFinding, ...]  # right before left, then those of no known side

    @property
    def images(self) -> tuple[ImageFinding, ...]:
        """All images, breast by breast."""
        return tuple(image for breast in self.breasts for image in breast.images)

    @property
    def key(self) -> str:
        """A hash of study and patient: the exam's name in files, 16 hexadecimal digits."""
        return self.images[0].exam


def group_exams(
    images: Iterable[ImageFinding],
    model: Model,
    operating_point: OperatingPoint | None,
    aggregate: Literal["max", "mean"],
) -> list[ExamFinding]:
    """Put images together that are of one study and patient, and in it those of one breast.

    An image whose header names neither study nor patient is an exam of its own; one that names no
    side is a breast of its own.

    Returns:
        Exams in the order of their first images.
    """
    exams: dict[str, list[ImageFinding]] = {}
    for image in sorted(images, key=lambda image: image.number):
        exams.setdefault(image.exam, []).append(image)
    return [_make_exam(found, model, operating_point, aggregate) for found in exams.values()]


def _make_exam(
    images: list[ImageFinding],
    model: Model,
    operating_point: OperatingPoint | None,
    aggregate: Literal["max", "mean"],
) -> ExamFinding:
    sides = [[image for image in images if image.laterality == side] for side in ("R", "L")]
    unknown = [[image] for image in images if image.laterality is None]
    breasts = []
    for views in (*filter(None, sides), *unknown):
        probabilities = [image.probability for image in views]
        probability = max(probabilities) if aggregate == "max" else fmean(probabilities)
        decision = _decide(probability, operating_point)
        breasts.append(BreastFinding(views[0].laterality, probability, decision, tuple(views)))
    probability = max(breast.probability for breast in breasts)
    return ExamFinding(
        model=model,
        operating_point=operating_point,
        aggregate=aggregate,
        probability=probability,
        decision=_decide(probability, operating_point),
        breasts=tuple(breasts),
    )


def _decide(probability: float, point: OperatingPoint | None) -> Decision | None:
    if point is None:
        return None
    return "positive" if probability >= point.threshold else "negative"


def name_exam(identity: Identity, number: int) -> str:
    """The key of the exam that an image belongs to.

    Args:
        identity: of the image.
        number: of its file; it tells exams apart whose headers name neither study nor patient.
    """
    study, patient = identity.study, identity.patient
    alone = f"{number}" if study is None and patient is None else ""
    return hash_ids("exam", study, patient, alone)


def hash_ids(*parts: str | None) -> str:
    """A name for ids that does not say them.

    It is 16 hexadecimal digits, which tell other parts apart, and not what they are.

    A PatientID is often a short number, which can be found by trying all: no hash is of it alone.
    """
    text = "\0".join("" if part is None else part for part in parts)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def describe_model(model: Model, point: OperatingPoint | None) -> dict[str, Any]:
    """The model and its operating point as JSON, as each document holds them."""
    return {
        "model": asdict(model),
        "operating_point": None if point is None else asdict(point),
    }


def to_document(
    exam: ExamFinding, identified: bool = False, heatmaps: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """The finding as JSON, by exam.schema.json.

    Args:
        exam: the finding.
        identified: add the ids of the headers and the paths of the files.
        heatmaps: the text that stands for an image's heatmap, by the image's number.
    """
    texts = heatmaps or {}
    first = exam.images[0].identity
    ids = {"study_uid": first.study, "patient_id": first.patient} if identified else {}
    return {
        "notice": NOTICE,
        "exam": exam.key,
        **ids,
        **describe_model(exam.model, exam.operating_point),
        "aggregate": exam.aggregate,
        "probability": exam.probability,
        "decision": exam.decision,
        "breasts": [
            {
                "laterality": breast.laterality,
                "probability": breast.probability,
                "decision": breast.decision,
                "images": [
                    _image_document(image, identified, texts.get(image.number))
                    for image in breast.images
                ],
            }
            for breast in exam.breasts
        ],
    }


def _image_document(image: ImageFinding, identified: bool, heatmap: str | None) -> dict[str, Any]:
    identity, box, peak, region = image.identity, image.box, image.peak, image.region
    ids = {
        "sop_instance_uid": identity.instance,
        "series_uid": identity.series,
        "file": image.source,
    }
    return {
        "number": image.number,
        "image": image.key,
        **(ids if identified else {}),
        "sop_class_uid": identity.sop_class,
        "view": image.view,
        "rows": image.rows,
        "columns": image.columns,
        "probability": image.probability,
        "box": {"x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2},
        "found_by": image.found_by,
        "peak": None if peak is None else {"x": peak.x, "y": peak.y, "heat": peak.heat},
        "region": None
        if region is None
        else {"share": region.share, "points": [list(point) for point in region.points]},
        **({} if heatmap is None else {"heatmap": heatmap}),
    }


@cache
def read_schema() -> dict[str, Any]:
    """The JSON schema of `to_document`, draft 2020-12."""
    found: dict[str, Any] = read_json(_SCHEMA)
    return found
