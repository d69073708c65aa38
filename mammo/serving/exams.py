"""What the model finds in files: they are read in other processes, and judged in this one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mammo.cropping.cached_crop import LIBRARIES as DETECTING
from mammo.explanation.overlay import find_peak
from mammo.imaging.geometry import Box, Placement
from mammo.intake.cached_prepare import LIBRARIES as READING
from mammo.kept.code_version import code_version
from mammo.serving.finding import ImageFinding, Peak, Point, Region
from mammo.serving.heat_map import REGION_SHARE, outline_region
from mammo.serving.intake import Reading, Refusal, make_reader_pool, refuse_failure
from mammo.serving.prediction import NetworkOutput, draw_heatmap
from mammo.serving.predictor import Predictor

Heatmap = Literal["none", "facts", "picture"]
"""What is wanted of the heat: nothing, its peak and region, or also a picture of it."""

_DIGITS = 2  # of a pixel: more would say that the heat is known so finely


@dataclass(frozen=True)
class UnreadFile:
    """A file without a finding."""

    number: int  # from 1, in the order in which the files were given
    source: str | None
    reason: str


def name_code() -> str:
    """A hash of the code that findings follow from, and of the libraries' versions."""
    return code_version(__name__, tuple(sorted({*READING, *DETECTING})))[:16]


def examine_files(
    predictor: Predictor, files: Sequence[Path], workers: int, heatmap: Heatmap = "facts"
) -> Iterator[ImageFinding | UnreadFile]:
    """What the model finds in each file, in order.

    Args:
        predictor: the model.
        files: of images.
        workers: processes that read them.
        heatmap: what is wanted of the heat.

    Returns:
        A finding for each file, or why there is none: it cannot be read, crashes or hangs what
        reads it, or is another file's copy.
    """
    settings = predictor.params.preprocess
    results = make_reader_pool(workers).map((file, settings) for file in files)
    read = zip(files, results, strict=True)
    return refuse_copies(
        find_in(predictor, refuse_failure(result), number, str(file), heatmap)
        for number, (file, result) in enumerate(read, start=1)
    )


def refuse_copies(
    found: Iterable[ImageFinding | UnreadFile],
) -> Iterator[ImageFinding | UnreadFile]:
    """The same findings, but none for an image with the SOPInstanceUID of an earlier one."""
    known: dict[str, str] = {}
    for one in found:
        instance = one.identity.instance if isinstance(one, ImageFinding) else None
        if instance is not None and instance in known:
            reason = f"it has the SOPInstanceUID of {known[instance]}: it is a copy"
            yield UnreadFile(one.number, one.source, reason)
            continue
        if instance is not None:
            known[instance] = one.source or f"file {one.number}"
        yield one


def find_in(
    predictor: Predictor,
    read: Reading | Refusal,
    number: int,
    source: str | None,
    heatmap: Heatmap,
) -> ImageFinding | UnreadFile:
    """What the model finds in a file that was read; or why it was not read.

    Args:
        predictor: the model.
        read: by `intake.read`.
        number: of the file.
        source: its path; None if it has none.
        heatmap: what is wanted of the heat.
    """
    if isinstance(read, Refusal):
        return UnreadFile(number, source, read.reason)
    output = predictor.run_networks(read.prepared, heat=heatmap != "none")
    description, placement = read.prepared.description, read.prepared.placement
    peak, region = _locate(output, placement)
    return ImageFinding(
        number=number,
        source=source,
        identity=read.identity,
        laterality=description.laterality,
        view=description.view,
        rows=placement.stored_height,
        columns=placement.stored_width,
        probability=output.probability,
        box=placement.to_stored(output.box),
        found_by=output.found_by,
        peak=peak,
        region=region,
        heatmap=draw_heatmap(output) if heatmap == "picture" else None,
    )


def _locate(output: NetworkOutput, placement: Placement) -> tuple[Peak | None, Region | None]:
    """Peak and region of the heat in the stored image; None where there is no heat."""
    at = None if output.heat is None else find_peak(output.heat)
    if output.heat is None or at is None:
        return None, None

    def to_stored(x: float, y: float) -> Point:
        x, y = x + output.box.x1, y + output.box.y1
        point = placement.to_stored(Box(x, y, x, y))
        return round(point.x1, _DIGITS), round(point.y1, _DIGITS)

    # What `find_peak` gives are pixels, whose middle is meant.
    x, y = to_stored(at[0] + 0.5, at[1] + 0.5)
    heat = float(output.heat[int(at[1]), int(at[0])])
    points = tuple(to_stored(*corner) for corner in outline_region(output.heat))
    return Peak(x, y, heat), Region(REGION_SHARE, points)
