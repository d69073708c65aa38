"""Exams that the tests of this folder share: phantoms, drawn once."""

from pathlib import Path

import pytest

from mammo.datasets.phantom.draw import write_phantoms


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """The files of three women, four views each in a series of its own."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(folder, women=3, seed=3, long_side=320)
    women = sorted((folder / "train_images").iterdir())
    return [sorted(woman.glob("*.dcm")) for woman in women]


@pytest.fixture(scope="session")
def views(phantoms: list[list[Path]]) -> list[Path]:
    """The four views of one woman."""
    return phantoms[0]
