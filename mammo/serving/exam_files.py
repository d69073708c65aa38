"""An exam's finding as files: FOLDER/EXAM/exam.json, and the heatmaps of its images beside it."""

import re
from collections.abc import Collection
from pathlib import Path

from mammo.base.atomic_files import write_bytes, write_json
from mammo.serving.finding import ExamFinding, ImageFinding, to_document

DOCUMENT = "exam.json"

_HEATMAP = re.compile(r"(?:[A-Z]+-){0,2}[0-9a-f]{16}\.png")


def name_heatmap(image: ImageFinding) -> str:
    """The name of an image's heatmap in the folder of its exam, such as `L-CC-<hash>.png`."""
    return "-".join([*filter(None, (image.laterality, image.view)), f"{image.key}.png"])


def write_heatmap(folder: Path, image: ImageFinding) -> None:
    """Write an image's heatmap, which must be there, into the folder of its exam."""
    assert image.heatmap is not None
    write_bytes(folder / image.exam / name_heatmap(image), image.heatmap)


def write_exam(
    folder: Path, exam: ExamFinding, identified: bool, with_heatmap: Collection[int]
) -> Path:
    """Write an exam's finding by exam.schema.json; its path.

    Heatmaps of an earlier finding of the exam that are not of this one are removed.

    Args:
        folder: of all exams; the exam has one of its own in it.
        exam: the finding.
        identified: with the ids of the headers and the paths of the files.
        with_heatmap: the numbers of its images whose heatmap was written.
    """
    names = {image.number: name_heatmap(image) for image in exam.images}
    heatmaps = {number: name for number, name in names.items() if number in with_heatmap}
    path = folder / exam.key / DOCUMENT
    write_json(path, to_document(exam, identified, heatmaps))
    for file in path.parent.iterdir():
        if _HEATMAP.fullmatch(file.name) and file.name not in heatmaps.values():
            file.unlink()
    return path
