"""Figures are drawn to the same bytes, for a page that has all it needs."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from mammo.reporting.figures import Point, draw_agreement, draw_history, draw_unit_curve


def draw_roc() -> str:
    marked = Point(0.1, 0.6, "threshold")
    return draw_unit_curve(
        (0, 0.1, 1), (0, 0.6, 1), False, ("fpr", "tpr"), ((0, 0), (1, 1)), marked
    )


def draw_one_class() -> str:
    return draw_agreement([0.1, 0.2], [0.2, 0.1], [0, 0], (0.3, 0.4))


def draw_epochs() -> str:
    return draw_history({"loss": {"train": [0.5, 0.4], "validation": [0.6, 0.7]}}, [1, 2])


@pytest.mark.parametrize("draw", [draw_roc, draw_one_class, draw_epochs])
def test_a_figure_is_the_same_each_time_and_points_nowhere(draw: Callable[[], str]) -> None:
    figure = draw()
    assert figure == draw()
    assert figure.startswith("<svg")
    assert "http" not in figure
    assert not re.findall(r'href="(?!#)', figure)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (draw_roc, {"fpr", "tpr", "threshold"}),
        (draw_one_class, {"then", "now", "negative", "positive"}),
        (draw_epochs, {"epoch", "loss", "train", "validation"}),
    ],
)
def test_its_words_are_text_that_can_be_read_aloud(
    draw: Callable[[], str], words: set[str]
) -> None:
    without_prefixes = re.sub(r"\bxlink:", "", draw())
    texts = {node.text for node in ElementTree.fromstring(without_prefixes).iter("text")}
    assert words <= texts
