"""The pictures of suspicious views: the film, the heat where it was, and what is written below."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mammo.dicom.reader import read_mammogram
from mammo.dicom_results.capture import LONG_SIDE
from mammo.dicom_results.write import write_results
from mammo.serving.finding import NOTICE
from tests.support.findings import make_finding, sources_of


def captures_of(files: list[Path], folder: Path) -> list[Dataset]:
    exam = make_finding(files, [0.9] * len(files))
    written = write_results(exam, sources_of(exam), folder)
    return [pydicom.dcmread(path) for path in sorted(written.glob("capture-*.dcm"))]


def film_of(source: Path) -> NDArray[np.uint8]:
    return read_mammogram(source, LONG_SIDE).pixels


def source_of(capture: Dataset, files: list[Path]) -> Path:
    (reference,) = capture.SourceImageSequence
    (found,) = [
        file
        for file in files
        if pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID
        == reference.ReferencedSOPInstanceUID
    ]
    return found


def test_each_suspicious_view_has_a_colour_picture_that_says_what_it_is(
    views: list[Path], tmp_path: Path
) -> None:
    captures = captures_of(views, tmp_path)
    assert len(captures) == 4
    for capture in captures:
        assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert capture.PhotometricInterpretation == "RGB"
        assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
        assert capture.ImageComments == NOTICE
        assert capture.ContentQualification == "RESEARCH"
        assert capture.BurnedInAnnotation == "NO"  # as the source: our text names nobody
        assert capture.pixel_array.shape == (capture.Rows, capture.Columns, 3)
        source = pydicom.dcmread(source_of(capture, views), stop_before_pixels=True)
        assert capture.Laterality == source.ImageLaterality
        assert list(capture.PatientOrientation) == list(source.PatientOrientation)


def test_a_breasts_pictures_are_a_series(views: list[Path], tmp_path: Path) -> None:
    captures = captures_of(views, tmp_path)
    sides = {capture.SeriesInstanceUID: capture.Laterality for capture in captures}
    assert sorted(sides.values()) == ["L", "R"]
    for uid in sides:
        numbers = [c.InstanceNumber for c in captures if c.SeriesInstanceUID == uid]
        assert sorted(numbers) == [1, 2]


def test_the_heat_lies_where_the_finding_says_in_every_view(
    phantoms: list[list[Path]], tmp_path: Path
) -> None:
    """Breasts that were turned to the left to be looked at are shown as they were taken."""
    turned = set()
    for number, files in enumerate(phantoms):
        for capture in captures_of(files, tmp_path / f"{number}"):
            source = source_of(capture, files)
            film = film_of(source)
            picture = capture.pixel_array[: film.shape[0]].astype(int)
            warmth = picture[..., 0] - picture[..., 2]  # both outlines are cold
            (image,) = make_finding([source], [0.9]).images
            assert image.peak is not None
            scale = film.shape[1] / image.columns
            x, y = image.peak.x * scale, image.peak.y * scale
            hot = warmth > 0.6 * warmth.max()
            seen_y, seen_x = (positions.mean() for positions in np.nonzero(hot))
            width = image.box.width * scale
            assert (seen_x, seen_y) == pytest.approx((x, y), abs=0.1 * width)
            turned.add("mirrored" if image.box.x1 > 0.3 * image.columns else "as it was")
    assert {"mirrored", "as it was"} <= turned


def test_away_from_heat_and_lines_the_picture_is_the_film(
    views: list[Path], tmp_path: Path
) -> None:
    capture = captures_of(views, tmp_path)[0]
    film = film_of(source_of(capture, views))
    picture = capture.pixel_array[: film.shape[0]]
    grey = picture.max(axis=2) == picture.min(axis=2)
    assert grey.mean() > 0.5
    difference = np.abs(picture[..., 0].astype(int) - film)[grey]
    assert np.percentile(difference, 99) <= 12  # scaled once more than the film


def test_the_text_stands_below_the_film_and_covers_none_of_it(
    views: list[Path], tmp_path: Path
) -> None:
    capture = captures_of(views, tmp_path)[0]
    film = film_of(source_of(capture, views))
    strip = capture.pixel_array[film.shape[0] :]
    assert len(strip) > 60
    assert 0.005 < (strip.max(axis=2) > 128).mean() < 0.3
    assert not strip[:, -4:].any()  # nothing runs out of the picture


def test_a_negative_film_is_shown_as_a_positive(phantoms: list[list[Path]], tmp_path: Path) -> None:
    """MONOCHROME1: low values are bright."""
    inverted = [
        file
        for files in phantoms
        for file in files
        if pydicom.dcmread(file, stop_before_pixels=True).PhotometricInterpretation == "MONOCHROME1"
    ]
    assert inverted
    (capture,) = captures_of(inverted[:1], tmp_path)
    film = film_of(inverted[0])
    corner = capture.pixel_array[: film.shape[0]][[0, -1]][:, [0, -1]]
    assert np.median(corner) < 40  # air is black


@pytest.mark.parametrize(("source_says", "expected"), [("YES", "YES"), ("NO", "NO"), (None, None)])
def test_whether_the_pixels_name_somebody_is_what_the_source_says(
    views: list[Path], tmp_path: Path, source_says: str | None, expected: str | None
) -> None:
    dataset = pydicom.dcmread(views[0])
    dataset.pop("BurnedInAnnotation")
    if source_says is not None:
        dataset.BurnedInAnnotation = source_says
    dataset.LossyImageCompression = "01"
    dataset.save_as(tmp_path / "source.dcm")
    (capture,) = captures_of([tmp_path / "source.dcm"], tmp_path / "out")
    assert capture.get("BurnedInAnnotation") == expected
    assert capture.LossyImageCompression == "01"


def test_films_of_no_known_side_have_a_picture_each(views: list[Path], tmp_path: Path) -> None:
    files = []
    for view in views[:2]:
        dataset = pydicom.dcmread(view)
        del dataset.ImageLaterality
        files.append(tmp_path / view.name)
        dataset.save_as(files[-1])
    captures = captures_of(files, tmp_path / "out")
    assert len({capture.SOPInstanceUID for capture in captures}) == 2
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert sorted(capture.InstanceNumber for capture in captures) == [1, 2]
    assert {capture.Laterality for capture in captures} == {""}
