"""Commits from before there were rooms."""

from pathlib import Path

from flows.snapshots.earlier_layout import find_module, locate_module
from tests.imports import ROOT


def test_an_older_commit_is_asked_by_the_names_that_it_knows(tmp_path: Path) -> None:
    for new, old in (
        ("mammo.serving.score_files", "mammo.scoring"),
        ("mammo.assurance.fingerprint", "mammo.fingerprint"),
        ("mammo.assurance.fingerprint", "mammo.learning.fingerprint"),
        ("flows.tracking.served_model", "flows.serving"),
    ):
        assert (ROOT / locate_module(new)).is_file()
        folder = tmp_path / old
        assert find_module(folder, new) is None
        for name in (old, new):
            file = folder / locate_module(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            assert find_module(folder, new) == name
