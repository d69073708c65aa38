"""A picture of a suspicious view, which any viewer shows: a secondary capture.

The film as a radiologist sees it, with the heat over the breast, the breast's box, the outline of
the hot region, and below it what they mean and that they are for research only.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import SecondaryCaptureImageStorage

from mammo.base.errors import UserError
from mammo.dicom.errors import UnreadableDicom
from mammo.dicom.reader import read_mammogram
from mammo.dicom_results import codes
from mammo.dicom_results.content_items import to_dataset
from mammo.dicom_results.objects import (
    Moment,
    make_series_uid,
    percent,
    refer_to,
    start_object,
)
from mammo.dicom_results.source import Exam, Film, name_of
from mammo.dicom_results.suspicion import Point, corners_of, find_outline
from mammo.imaging.geometry import Box, Placement
from mammo.serving.finding import NOTICE

Picture = NDArray[np.uint8]  # (height, width, 3) RGB

LONG_SIDE = 1024
"""Pixels of the film's longer side: a capture is to look at, and the film itself is beside it."""

SERIES_NUMBERS = {"R": 9002, "L": 9003, None: 9004}

BREAST_COLOUR = (110, 170, 255)  # RGB: none of these is in the heat's colour map
REGION_COLOUR = (90, 255, 160)
_TEXT_COLOUR = (255, 255, 255)

_COLD = 8
"""Between the channels of a pixel that no heat has coloured, scaled as it may be."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SIZE = 0.5  # of the font's own
_LINE = 20  # pixels from one line of text to the next
_MARGIN = 8


def build_capture(exam: Exam, film: Film, moment: Moment, number: int) -> Dataset:
    """Build the secondary capture of a view. Its SOPInstanceUID is still missing.

    Args:
        exam: with the finding to show.
        film: of the exam.
        moment: when the capture was made.
        number: of the capture in its series, from 1. The captures of a side are a series.

    Raises:
        UserError: the film cannot be read.
    """
    side = film.finding.laterality
    series = make_series_uid(exam, "captures", side or ""), SERIES_NUMBERS[side]
    dataset = start_object(exam, moment, SecondaryCaptureImageStorage, "OT", series)
    dataset.InstanceNumber = number
    # Of the series, for a paired organ; the class has no attribute for one image's side.
    dataset.Laterality = side or ""
    dataset.ConversionType = "WSD"  # made at a workstation
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = list(film.image.orientation or ())
    dataset.ImageComments = NOTICE
    dataset.DerivationDescription = "Scaled down; heat of Grad-CAM, outlines and text drawn in"
    source = refer_to(film.image)
    source.PurposeOfReferenceCodeSequence = Items([to_dataset(codes.SOURCE_IMAGE)])
    dataset.SourceImageSequence = Items([source])
    # Whether pixels tell who the patient is (PS3.3 C.7.6.1): our text does not, the film's may.
    if film.image.burned_in:
        dataset.BurnedInAnnotation = film.image.burned_in
    dataset.LossyImageCompression = "01" if film.image.lossy else "00"
    _add_pixels(dataset, draw_capture(exam, film))
    return dataset


def _add_pixels(dataset: Dataset, picture: Picture) -> None:
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    content = picture.tobytes()
    dataset.PixelData = content + b"\x00" * (len(content) % 2)  # an element's length is even
    dataset["PixelData"].VR = "OB"


def draw_capture(exam: Exam, film: Film) -> Picture:
    """Draw the film, the heat, the outlines and the text.

    Raises:
        UserError: the film cannot be read.
    """
    image = film.finding
    try:
        grey = read_mammogram(film.content, LONG_SIDE).pixels
    except UnreadableDicom as error:
        raise UserError(f"{name_of(image)}: {error.reason}") from None
    height, width = grey.shape
    picture = np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    seen = Placement(image.columns, image.rows, width, height, flipped=False)
    breast = seen.to_image(image.box).clip(width, height)
    if image.heatmap is not None:
        _paste_heat(picture, image.heatmap, breast)
    _draw_outline(picture, corners_of(breast), BREAST_COLOUR, 1)
    hot = [seen.to_image(Box(x, y, x, y)) for x, y in find_outline(film)[1]]
    _draw_outline(picture, [(at.x1, at.y1) for at in hot], REGION_COLOUR, 2)
    return _add_text(picture, _describe(exam, film))


def _paste_heat(picture: Picture, heatmap: bytes, breast: Box) -> None:
    """Lay the breast under its heat over the film.

    The heatmap shows the breast turned to the left. Whether it was mirrored for that is seen by
    laying it over the film both ways: away from the heat it is the film itself.
    """
    left, top, right, bottom = (round(v) for v in (breast.x1, breast.y1, breast.x2, breast.y2))
    below = picture[top:bottom, left:right]
    if below.size == 0:
        return
    found = cv2.imdecode(np.frombuffer(heatmap, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert found is not None  # our own PNG
    size = right - left, bottom - top
    heat = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_AREA), np.uint8)
    ways = heat, np.asarray(cv2.flip(heat, 1), np.uint8)
    below[...] = min(ways, key=lambda way: _differ(way, below))


def _differ(heat: Picture, film: Picture) -> float:
    """How much the grey parts of a heatmap differ from the film, on average."""
    cold = np.ptp(heat, axis=2) <= _COLD
    return float(cv2.absdiff(heat, film)[cold].mean()) if cold.any() else 0.0


def _draw_outline(
    picture: Picture, corners: Sequence[Point], colour: tuple[int, int, int], stroke: int
) -> None:
    points = np.rint(np.array(corners)).astype(np.int32)
    cv2.polylines(picture, [points], True, colour, stroke, cv2.LINE_AA)


def _describe(exam: Exam, film: Film) -> list[str]:
    image, model = film.finding, exam.model
    view = " ".join(filter(None, (image.laterality, image.view))) or "View"
    version = "not registered" if model.version is None else f"version {model.version}"
    snapshot = f", snapshot {model.snapshot[:12]}" if model.snapshot else ""
    return [
        NOTICE.upper(),
        f"{view}: probability of cancer {percent(image.probability)} % "
        f"(operating point {percent(exam.operating_point.threshold)} %)",
        "Blue: the breast. Green: the region that raised the probability most.",
        f"{model.name}, {version}{snapshot}",
    ]


def _add_text(picture: Picture, lines: Sequence[str]) -> Picture:
    """Add a black strip with the text below the picture, so that no tissue is covered."""
    room = picture.shape[1] - 2 * _MARGIN
    wrapped = [part for line in lines for part in _wrap(line, room)]
    strip = np.zeros((len(wrapped) * _LINE + 2 * _MARGIN, picture.shape[1], 3), np.uint8)
    for number, line in enumerate(wrapped):
        at = _MARGIN, _MARGIN + number * _LINE + round(0.7 * _LINE)
        cv2.putText(strip, line, at, _FONT, _SIZE, _TEXT_COLOUR, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def _wrap(line: str, room: int) -> list[str]:
    """Break a line where a further word would not fit into `room` pixels."""
    first, *words = line.split(" ")
    wrapped = [first]
    for word in words:
        longer = f"{wrapped[-1]} {word}"
        if cv2.getTextSize(longer, _FONT, _SIZE, 1)[0][0] <= room:
            wrapped[-1] = longer
        else:
            wrapped.append(word)
    return wrapped
