"""What a refusal of a DICOM file says holds nothing of its header; else the log would.

That nothing personal is in what a retrain leaves: tests/flows/retraining/test_end_to_end.py.
"""

from pathlib import Path

import pytest

from mammo.base.settings import load_params
from mammo.intake.prepare import prepare
from tests.support.markers import found_in


def test_the_markers_are_where_they_were_planted(drawn: Path) -> None:
    """Else finding none elsewhere would say nothing."""
    for path in (drawn / "train_images").rglob("*.dcm"):
        assert len(found_in(path.read_bytes())) >= 4, path
    assert list(drawn.glob("Zorgla*"))


def test_a_refusal_names_nothing_either(drawn: Path) -> None:
    path = next((drawn / "train_images").rglob("*.dcm"))
    content = path.read_bytes()
    for share in (0.1, 0.3, 0.6, 0.9):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            prepare(content[: int(share * len(content))], load_params().preprocess)
        assert found_in(f"{caught.value!r} {caught.value}".encode()) == []
