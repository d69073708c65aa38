"""The curves of a version's documents, drawn from the outs that its snapshot names.

No mammogram and no heatmap is among them: those are pictures of women, and the documents are for
people who may not see these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import pandas as pd

from flows.pipeline.known_outs import BREASTS_OUT, PRECISION_RECALL_OUT, ROC_OUT
from flows.pipeline.lock_and_cache import Cache, LockedStage, outs_of

CURVES = {
    "roc": ROC_OUT,
    "precision-recall": PRECISION_RECALL_OUT,
}
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
class Pictures:
    """SVG by name, and the outs that they were drawn from."""

    drawings: Mapping[str, str]
    sources: Mapping[str, tuple[str, str]]  # path and DVC's hash


def draw_pictures(
    stages: Sequence[LockedStage], cache: Cache, numbers: Mapping[str, float]
) -> tuple[Pictures, tuple[Bin, ...]]:
    """ROC, precision and recall, and calibration, as far as the cache has what they are drawn from.

    Args:
        stages: of the snapshot.
        cache: DVC's.
        numbers: metrics, by "stage/name".
    """
    from mammo.reporting import figures  # here, since it imports matplotlib

    outs = {path: md5 for path, md5 in outs_of(stages).items() if cache.state(md5) == "good"}
    at = {
        name: numbers.get(f"evaluate/test.breast.{name}.value")
        for name in ("sensitivity", "specificity", "precision")
    }
    recall, specificity, precise = at.values()
    drawings: dict[str, str] = {}
    bins: tuple[Bin, ...] = ()
    if CURVES["roc"] in outs and recall is not None and specificity is not None:
        table = _read(cache, outs[CURVES["roc"]])
        drawings["roc"] = figures.draw_unit_curve(
            table["fpr"].tolist(),
            table["tpr"].tolist(),
            False,
            ("1 - specificity", "sensitivity"),
            ((0, 0), (1, 1)),
            figures.Point(1 - specificity, recall, "operating point"),
        )
    if CURVES["precision-recall"] in outs and recall is not None and precise is not None:
        table = _read(cache, outs[CURVES["precision-recall"]])
        # Its end, precision 1 at recall 0, is a convention: nothing was measured there.
        precision = table["precision"].where(table["threshold"].notna()).ffill()
        cases = numbers["evaluate/test.breast.cases"]
        rate = numbers["evaluate/test.breast.positives"] / cases
        drawings["precision-recall"] = figures.draw_unit_curve(
            table["recall"].tolist(),
            precision.tolist(),
            True,
            ("recall (sensitivity)", "precision"),
            ((0, rate), (1, rate)),
            figures.Point(recall, precise, "operating point"),
        )
    if BREASTS_OUT in outs:
        breasts = _read(cache, outs[BREASTS_OUT])
        breasts = breasts[breasts["split"] == "test"]
        bins = share_out(breasts)
        filled = [one for one in bins if one.breasts >= DRAWN_FROM]
        drawings["calibration"] = figures.draw_unit_curve(
            [one.probability for one in filled],
            [one.positives / one.breasts for one in filled],
            False,
            ("mean probability", "share of positive breasts"),
            ((0, 0), (1, 1)),
            figures.Point(breasts["probability"].mean(), breasts["target"].mean(), "all breasts"),
        )
    paths = {**CURVES, "calibration": BREASTS_OUT}
    sources = {name: (paths[name], outs[paths[name]]) for name in drawings}
    return Pictures(drawings, sources), bins


def share_out(breasts: pd.DataFrame) -> tuple[Bin, ...]:
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
