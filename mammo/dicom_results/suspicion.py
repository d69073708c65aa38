"""Which breasts and views of an exam the reports point at, and what they say in words."""

from mammo.dicom_results.objects import percent
from mammo.dicom_results.source import Exam, Film, Image
from mammo.imaging.geometry import Box
from mammo.serving.finding import NOTICE, BreastFinding

Point = tuple[float, float]

_NAMES = {"R": "Right breast", "L": "Left breast", None: "Breast of unknown side"}


def list_suspicious(exam: Exam, breast: BreastFinding) -> list[Film]:
    """The views to point at: of a positive breast, those that reach the operating point themselves.

    A positive breast has at least one, whether its probability is the highest or the mean of its
    views'.
    """
    if breast.decision != "positive":
        return []
    threshold = exam.operating_point.threshold
    numbers = {image.number for image in breast.images if image.probability >= threshold}
    return [film for film in exam.films if film.finding.number in numbers]


def list_positive(exam: Exam) -> list[list[Film]]:
    """The suspicious views of each positive breast."""
    found = [list_suspicious(exam, breast) for breast in exam.breasts]
    return [films for films in found if films]


def find_outline(film: Film) -> tuple[Point, tuple[Point, ...]]:
    """Where to point: the middle and the corners, in pixels of the stored image.

    The hot region and its peak. Where no part of the image stands out: the breast.
    """
    image = film.finding
    if image.region is not None and image.peak is not None:
        return (image.peak.x, image.peak.y), image.region.points
    return _middle(image.box), corners_of(image.box)


def describe_exam(exam: Exam) -> str:
    """The result in a few sentences: first what could not be read, so that nobody misses it."""
    threshold = exam.operating_point.threshold
    breasts = (describe_breast(breast, threshold) for breast in exam.breasts)
    return " ".join([NOTICE, *describe_unread(exam), *breasts])


def describe_unread(exam: Exam) -> list[str]:
    """Which images could not be read, as sentences; none if all could."""
    if not exam.unread:
        return []
    views = ", ".join(map(name_view, exam.unread))
    if not exam.films:
        return [f"No image of this exam could be read ({views}). Nothing is said of it."]
    count = len(exam.unread)
    images = "1 image" if count == 1 else f"{count} images"
    return [f"Incomplete: {images} could not be read ({views}). The result is on the others."]


def name_view(image: Image) -> str:
    """What words call a view, such as R MLO."""
    return " ".join(filter(None, (image.laterality, image.view))) or "unknown view"


def describe_breast(breast: BreastFinding, threshold: float) -> str:
    """The result for a breast in a sentence."""
    views = ", ".join(
        f"{image.view or 'unknown view'} {percent(image.probability)} %" for image in breast.images
    )
    return (
        f"{_NAMES[breast.laterality]}: probability of cancer {percent(breast.probability)} % "
        f"({views}), {breast.decision} at the operating point of {percent(threshold)} %."
    )


def describe_view(film: Film) -> str:
    """The result for a suspicious view in a sentence or two."""
    image = film.finding
    where = (
        f"The region has {100 * image.region.share:g} % or more of the highest heat (Grad-CAM)."
        if image.region is not None
        else "No part of the image stands out: the region is the breast."
    )
    return f"{NOTICE} Probability of cancer in this view: {percent(image.probability)} %. {where}"


def _middle(box: Box) -> Point:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def corners_of(box: Box) -> tuple[Point, ...]:
    """The corners of a box, one after the other."""
    return (box.x1, box.y1), (box.x2, box.y1), (box.x2, box.y2), (box.x1, box.y2)
