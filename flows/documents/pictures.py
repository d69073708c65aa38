"""The curves of a version's documents, drawn from the outs that its snapshot names.

No mammogram and no heatmap is among them: those are pictures of women, and the documents are for
people who may not see these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import pandas as pd

from flows.pipeline.known_outs import BREASTS_OUT, PRECISION_RECALL_OUT, ROC_OUT
from flows.pipeline.lock_and_cache import Cache, LockedStage, collect_outs

TABLES = {
    "roc": ROC_OUT,
    "precision-recall": PRECISION_RECALL_OUT,
    "calibration": BREASTS_OUT,
}
"""The outs that pictures are drawn from, by the pictures' names."""

BINS = 10
DRAWN_FROM = 5  # breasts of a bin: the share of fewer is hardly one


@dataclass(frozen=True)
class Bin:
    """Test breasts whose probabilities are alike."""

    low: float
    high: float
    breasts: int
    positives: int
    probability: float  # mean


@dataclass(frozen=True)
class Drawings:
    """SVG by name, and the outs that they were drawn from."""

    drawings: Mapping[str, str]
    sources: Mapping[str, tuple[str, str]]  # path and DVC's hash


def draw_pictures(
    stages: Sequence[LockedStage], cache: Cache, numbers: Mapping[str, float]
) -> tuple[Drawings, tuple[Bin, ...]]:
    """ROC, precision and recall, and calibration, as far as the cache has what they are drawn from.

    Args:
        stages: of the snapshot.
        cache: DVC's.
        numbers: metrics, by "stage/name".
    """
    outs = {path: md5 for path, md5 in collect_outs(stages).items() if cache.state(md5) == "good"}
    tables = {name: _read(cache, outs[path]) for name, path in TABLES.items() if path in outs}
    sensitivity, specificity, precision = (
        numbers.get(f"evaluate/test.breast.{name}.value")
        for name in ("sensitivity", "specificity", "precision")
    )
    drawings: dict[str, str] = {}
    bins: tuple[Bin, ...] = ()
    if "roc" in tables and sensitivity is not None and specificity is not None:
        drawings["roc"] = _draw_roc(tables["roc"], sensitivity, specificity)
    if "precision-recall" in tables and sensitivity is not None and precision is not None:
        positives, cases = (numbers[f"evaluate/test.breast.{x}"] for x in ("positives", "cases"))
        drawings["precision-recall"] = _draw_precision_recall(
            tables["precision-recall"], sensitivity, precision, positives / cases
        )
    if "calibration" in tables:
        breasts = tables["calibration"]
        breasts = breasts[breasts["split"] == "test"]
        bins = sort_into_bins(breasts)
        drawings["calibration"] = _draw_calibration(breasts, bins)
    sources = {name: (TABLES[name], outs[TABLES[name]]) for name in drawings}
    return Drawings(drawings, sources), bins


def _draw_roc(table: pd.DataFrame, sensitivity: float, specificity: float) -> str:
    """The ROC curve with the operating point."""
    from mammo.reporting import figures  # in the functions that draw: it imports matplotlib

    return figures.draw_unit_curve(
        table["fpr"].tolist(),
        table["tpr"].tolist(),
        False,
        ("1 - specificity", "sensitivity"),
        ((0, 0), (1, 1)),
        figures.Point(1 - specificity, sensitivity, "operating point"),
    )


def _draw_precision_recall(
    table: pd.DataFrame, recall: float, precision: float, prevalence: float
) -> str:
    """Precision against recall with the operating point, and what chance would give."""
    from mammo.reporting import figures

    # Its end, precision 1 at recall 0, is a convention: nothing was measured there.
    measured = table["precision"].where(table["threshold"].notna()).ffill()
    return figures.draw_unit_curve(
        table["recall"].tolist(),
        measured.tolist(),
        True,
        ("recall (sensitivity)", "precision"),
        ((0, prevalence), (1, prevalence)),
        figures.Point(recall, precision, "operating point"),
    )


def _draw_calibration(breasts: pd.DataFrame, bins: Sequence[Bin]) -> str:
    """The share of positive breasts against their probability, by bin and of all."""
    from mammo.reporting import figures

    filled = [one for one in bins if one.breasts >= DRAWN_FROM]
    return figures.draw_unit_curve(
        [one.probability for one in filled],
        [one.positives / one.breasts for one in filled],
        False,
        ("mean probability", "share of positive breasts"),
        ((0, 0), (1, 1)),
        figures.Point(breasts["probability"].mean(), breasts["target"].mean(), "all breasts"),
    )


def sort_into_bins(breasts: pd.DataFrame) -> tuple[Bin, ...]:
    """The breasts in ten bins of equal width, as the calibration error has them; no empty ones.

    Args:
        breasts: target (0 or 1) and probability (in [0, 1]), a row a breast.
    """
    numbers = (breasts["probability"] * BINS).astype(int).clip(upper=BINS - 1)
    return tuple(
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(cases),
            int(cases["target"].sum()),
            float(cases["probability"].mean()),
        )
        for number, cases in sorted(breasts.groupby(numbers), key=lambda pair: int(str(pair[0])))
        for number in [int(str(number))]
    )


def _read(cache: Cache, md5: str) -> pd.DataFrame:
    return pd.read_csv(BytesIO(cache.path(md5).read_bytes()))
