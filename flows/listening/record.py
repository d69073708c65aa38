"""The record of an answered study: what was found in each image, and what was reported.

A later image gets a report on the whole exam from it, when the pixels are no longer kept.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mammo.base.atomic_files import read_json, write_json
from mammo.dicom_results.objects import WrittenReport
from mammo.imaging.geometry import Box
from mammo.serving.finding import ImageFinding, Model, Peak, Region
from mammo.serving.identity import Identity

FILE = "record.json"


@dataclass(frozen=True)
class SeenImage:
    """An image that the model was shown."""

    model: Model
    finding: ImageFinding | None  # None: it could not be read


@dataclass(frozen=True)
class StudyRecord:
    """What was found and reported in a study so far."""

    images: Mapping[str, SeenImage] = field(default_factory=dict)  # by SOPInstanceUID
    reports: Mapping[str, tuple[Model, WrittenReport]] = field(default_factory=dict)
    """The last report on each exam, by its key. A study has one exam, unless patients share it."""

    def has_read(self, uid: str) -> bool:
        """Whether an image was looked at. One that could not be read may be tried again."""
        seen = self.images.get(uid)
        return seen is not None and seen.finding is not None

    def has_seen(self, uid: str, model: Model) -> bool:
        """Whether this model was shown an image, or could not be."""
        seen = self.images.get(uid)
        return seen is not None and seen.model == model

    @property
    def last_number(self) -> int:
        """The highest number of its images; 0 if there is none."""
        return max(
            (seen.finding.number for seen in self.images.values() if seen.finding), default=0
        )


def read_record(file: Path) -> StudyRecord:
    """Read a record; an empty one if there is no such file."""
    if not file.exists():
        return StudyRecord()
    found = read_json(file)
    return StudyRecord(
        images={
            uid: SeenImage(Model(**seen["model"]), _read_finding(seen["finding"]))
            for uid, seen in found["images"].items()
        },
        reports={
            exam: (Model(**said["model"]), WrittenReport(**said["report"]))
            for exam, said in found["reports"].items()
        },
    )


def write_record(file: Path, record: StudyRecord) -> None:
    """Write a record."""
    images = {
        uid: {"model": asdict(seen.model), "finding": _describe(seen.finding)}
        for uid, seen in record.images.items()
    }
    reports = {
        exam: {"model": asdict(model), "report": asdict(report)}
        for exam, (model, report) in record.reports.items()
    }
    write_json(file, {"images": images, "reports": reports})


def _describe(finding: ImageFinding | None) -> dict[str, Any] | None:
    """A finding as JSON, without its picture and its path."""
    if finding is None:
        return None
    return asdict(finding) | {"source": None, "heatmap": None}


def _read_finding(found: dict[str, Any] | None) -> ImageFinding | None:
    if found is None:
        return None
    peak, region = found["peak"], found["region"]
    points = () if region is None else tuple((x, y) for x, y in region["points"])
    return ImageFinding(
        **found
        | {
            "identity": Identity(**found["identity"]),
            "box": Box(**found["box"]),
            "peak": None if peak is None else Peak(**peak),
            "region": None if region is None else Region(region["share"], points),
        }
    )
