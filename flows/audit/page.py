"""An audit as one self-contained page, which opens from a file and needs no network."""

from pathlib import Path

import jinja2

from flows.audit.record import EXIT_STATUS, Audit, Points
from mammo.reporting import figures

TEMPLATE = Path(__file__).with_name("page.html.j2")


def render(audit: Audit) -> str:
    """The page; equal audits give equal pages."""
    engine = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters["short"] = lambda digest: digest[:12] if digest else "none"
    engine.filters["number"] = lambda value: f"{value:.6g}"
    colours = {0: "good", 1: "bad", 2: "open"}
    return engine.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        audit=audit,
        colour=colours[EXIT_STATUS[audit.verdict]],
        picture=_draw_points(audit.points) if audit.points else "",
    )


def _draw_points(points: Points) -> str:
    """Both models' probabilities of each test breast."""
    thresholds = points.threshold_then, points.threshold_now
    return figures.draw_agreement(points.then, points.now, points.target, thresholds)
