"""Nothing personal leaves data/: markers planted in every file's header are found nowhere else."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mammo.base.atomic_files import read_json
from mammo.base.settings import load_params
from mammo.intake.prepare import prepare
from tests.support.markers import needles
from tests.support.small_project import Retrained

pytestmark = pytest.mark.timeout(1800)

# The data themselves, which DVC's cache holds once more beside the outs.
PERSONAL = ("data", ".dvc/cache/files")


def files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        inside = path.relative_to(root).as_posix()
        if path.is_file() and not any(inside.startswith(f"{name}/") for name in PERSONAL):
            yield path


def found_in(content: bytes) -> list[bytes]:
    lower = content.lower()
    return [needle for needle in needles() if needle in lower]


def unpacked(path: Path) -> bytes:
    """A file's bytes; those of a git object are packed."""
    content = path.read_bytes()
    if ".git/objects" in path.as_posix() and "pack" not in path.parts:
        return zlib.decompress(content)
    return content


def test_the_markers_are_where_they_were_planted(registered: Retrained) -> None:
    """Else finding none elsewhere would say nothing."""
    for path in (registered.root / "data" / "train_images").rglob("*.dcm"):
        assert len(found_in(path.read_bytes())) >= 4, path
    assert list((registered.root / "data").glob("Zorgla*"))


def test_nothing_personal_is_found_outside_the_data(challenged: Retrained) -> None:
    searched = list(files(challenged.root))
    guilty = {
        str(path): found
        for path in searched
        if (found := found_in(unpacked(path)) or found_in(path.name.encode()))
        and "tests" not in path.parts
    }
    assert guilty == {}
    names = {path.name for path in searched}
    folders = {path.relative_to(challenged.root).parts[0] for path in searched}
    assert {"mlflow.db", "index.html", "weights.safetensors", "manifest.csv"} <= names
    assert {"outputs", "mlruns", ".dvc", ".git"} <= folders


def test_nothing_personal_is_said(registered: Retrained) -> None:
    assert "preprocess" in registered.said
    assert found_in(registered.said.encode()) == []


def test_the_logs_that_prefect_keeps_are_searched_too(registered: Retrained) -> None:
    kept = [path for path in files(registered.root) if ".prefect" in path.parts]
    assert any(path.suffix == ".db" for path in kept)


def test_text_in_the_pixels_is_counted_and_reported(registered: Retrained) -> None:
    metrics = read_json(registered.root / "outputs/preprocess/metrics.json")
    assert metrics["burned_in_annotation"] == metrics["images"] == 96
    assert metrics["files_without_row"] == 1
    page = (registered.root / "outputs/report/index.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "burned in annotation 96" in text


def test_a_refusal_names_nothing_either(registered: Retrained) -> None:
    path = next((registered.root / "data" / "train_images").rglob("*.dcm"))
    content = path.read_bytes()
    for share in (0.1, 0.3, 0.6, 0.9):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            prepare(content[: int(share * len(content))], load_params().preprocess)
        assert found_in(f"{caught.value!r} {caught.value}".encode()) == []
