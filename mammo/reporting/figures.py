"""Curves as inline SVG: equal input gives equal bytes, and nothing in them points outside."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PALETTE = ("#1f5fa8", "#d1622b", "#2f8f6b", "#8a4fb0", "#7a7a7a", "#b8860b")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mammoflow",  # else element ids are random
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b94a0",
    "axes.labelcolor": "#39424e",
    "xtick.color": "#39424e",
    "ytick.color": "#39424e",
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Point:
    """A marked point of a curve."""

    x: float
    y: float
    label: str


def draw_unit_curve(
    x: Sequence[float],
    y: Sequence[float],
    steps: bool,
    labels: tuple[str, str],
    reference: tuple[tuple[float, float], tuple[float, float]],
    marked: Point,
) -> str:
    """A ROC or precision-recall curve on the unit square.

    Args:
        x: in [0, 1].
        y: in [0, 1], of the same length.
        steps: y holds until the next x, as average precision sums it; else straight lines, as the
            area under the ROC curve does.
        labels: of the x axis and of the y axis.
        reference: two points (x, y), joined by a dashed line: what guessing would give.
        marked: the operating point.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.3, 3.1), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*reference, strict=True), color="#a7afb9", linestyle="--", linewidth=1)
        style = "steps-post" if steps else "default"
        axes.plot(x, y, color=PALETTE[0], linewidth=1.8, drawstyle=style)
        axes.plot(marked.x, marked.y, "o", color=PALETTE[1], markersize=6, label=marked.label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=labels[0], ylabel=labels[1])
        axes.set_aspect("equal")
        axes.legend(loc="best", handletextpad=0.1)
        return _svg(figure)


def draw_agreement(
    then: Sequence[float],
    now: Sequence[float],
    target: Sequence[int],
    thresholds: tuple[float, float],
) -> str:
    """What two models say of the same breasts: a dot each, on the unit square.

    Args:
        then: probability by the recorded model, on the x axis.
        now: by the re-made one, on the y axis.
        target: 0 or 1; the positive ones are drawn over the others.
        thresholds: at and above which each model calls a breast positive; as lines.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot((0, 1), (0, 1), color="#a7afb9", linewidth=1)
        axes.axvline(thresholds[0], color="#39424e", linestyle="--", linewidth=1)
        axes.axhline(thresholds[1], color="#39424e", linestyle="--", linewidth=1)
        for wanted, label, colour in ((0, "negative", PALETTE[0]), (1, "positive", PALETTE[1])):
            dots = [(x, y) for x, y, t in zip(then, now, target, strict=True) if t == wanted]
            columns = tuple(zip(*dots, strict=True)) or ((), ())
            axes.plot(*columns, "o", color=colour, markersize=4, alpha=0.7, mew=0, label=label)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="then", ylabel="now")
        axes.set_aspect("equal")
        axes.legend(loc="upper left", handletextpad=0.1)
        return _svg(figure)


def draw_history(panels: Mapping[str, Mapping[str, Sequence[float]]], epochs: Sequence[int]) -> str:
    """Curves over the epochs, one panel beside the other.

    Args:
        panels: y label -> curve's name -> one value an epoch.
        epochs: their numbers.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(panels), 2.7), layout="constrained")
        for column, (label, curves) in enumerate(panels.items(), start=1):
            axes: Axes = figure.add_subplot(1, len(panels), column)
            for number, (name, values) in enumerate(curves.items()):
                colour = PALETTE[number % len(PALETTE)]
                axes.plot(
                    epochs,
                    values,
                    color=colour,
                    marker="o",
                    markersize=2.5,
                    linewidth=1.4,
                    label=name,
                )
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="best")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element for an HTML page, which needs no XML head or namespaces."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
