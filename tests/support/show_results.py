"""An example of the results, as docs/dicom-results.md shows them: a phantom with a cancer.

    python -m tests.support.show_results FOLDER

It draws the exam, invents the finding (the heat lies on the lesion, which the phantom knows), and
writes both reports, the captures, and the first capture as capture.png. No network is asked.
"""

import sys
from pathlib import Path

import cv2
import pandas as pd
import pydicom

from mammo.base.atomic_files import write_bytes
from mammo.datasets.phantom.draw import write_phantoms
from mammo.dicom_results.write import write_results
from mammo.imaging.geometry import Box
from mammo.imaging.png import encode_png
from mammo.serving.finding import ExamFinding, group_exams
from tests.support.findings import MODEL, POINT, find_image, sources_of


def make_example(folder: Path) -> ExamFinding:
    """Draw phantoms, and find the cancer of the first woman who has one."""
    write_phantoms(folder, women=8, seed=3, long_side=1536)
    lesions = pd.read_csv(folder / "lesions.csv", dtype={"image_id": str})
    cancers = lesions[lesions["kind"] == "mass"]
    sides = cancers[["x1", "y1", "x2", "y2"]].to_numpy(float).tolist()
    where = {name: Box(*side) for name, side in zip(cancers["image_id"], sides, strict=True)}
    files = sorted(folder.glob("train_images/*/*.dcm"))
    woman = next(file.parent for file in files if file.stem in where)
    images = [
        find_image(number, file, 0.87 if file.stem in where else 0.04, where.get(file.stem))
        for number, file in enumerate(sorted(woman.glob("*.dcm")), 1)
    ]
    (exam,) = group_exams(images, MODEL, POINT, "max")
    return exam


def main(folder: Path) -> None:
    """Write the example into a folder."""
    exam = make_example(folder / "data")
    for kind in ("1500", "cad"):
        written = write_results(exam, sources_of(exam), folder / kind, kind)
    capture = pydicom.dcmread(min(written.glob("capture-*.dcm"))).pixel_array
    write_bytes(folder / "capture.png", encode_png(capture))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main(Path(sys.argv[1]))
