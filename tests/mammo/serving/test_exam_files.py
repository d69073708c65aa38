"""An exam's folder holds what its newest finding says, and what it did not write stays."""

import json
from pathlib import Path

from mammo.datasets.phantom.draw import draw_phantom_dicom
from mammo.serving.exam_files import DOCUMENT, name_heatmap, write_exam, write_heatmap
from tests.support.findings import make_finding


def test_heatmaps_of_an_earlier_finding_go_and_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(draw_phantom_dicom(seed=3))
    exam = make_finding([tmp_path / "a.dcm"], [0.9])
    (image,) = exam.images
    folder = tmp_path / "out" / exam.key
    folder.mkdir(parents=True)
    stale = folder / f"R-MLO-{'0' * 16}.png"
    kept = [folder / "notes.txt", folder / "L-CC.png", folder / f"{'0' * 15}.png"]
    for file in (stale, *kept):
        file.write_text("of before")
    write_heatmap(tmp_path / "out", image)
    path = write_exam(tmp_path / "out", exam, identified=False, with_heatmap={image.number})
    assert path == folder / DOCUMENT
    assert {file.name for file in folder.iterdir()} == {
        *(file.name for file in kept),
        DOCUMENT,
        name_heatmap(image),
    }
    write_exam(tmp_path / "out", exam, identified=False, with_heatmap=set())
    assert not (folder / name_heatmap(image)).exists()
    (breast,) = json.loads(path.read_text())["breasts"]
    assert "heatmap" not in breast["images"][0]
