"""Where bytes may differ: do the recorded weights give the recorded predictions, and does the model
that was trained again do the same as the recorded one?

The first keeps a record honest that bytes cannot: weights that were exchanged afterwards, with
everything that names them, would otherwise be judged by predictions that are not theirs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from flows.audit.findings import missing, wrong
from flows.audit.record import Finding, Points
from flows.audit.reproduction import score_recorded
from flows.pipeline.lock_and_cache import Cache, LockedStage, outs_of
from flows.processes.follow import CommandError
from flows.processes.words import Say
from flows.snapshots.snapshot import Snapshot, materialise
from flows.tracking.registry import flatten
from mammo.assurance.equivalence import (
    Equivalence,
    Rescoring,
    Scored,
    compare_models,
    compare_predictions,
    find_case_difference,
)
from mammo.assurance.paired import compute_areas
from mammo.base.atomic_files import read_json
from mammo.base.errors import UserError
from mammo.base.settings import Audit
from mammo.data.tables import BREASTS, PREDICTIONS, read_table

_FOLDER = Path("outputs/evaluate")
_PREDICTIONS, _BREASTS, _METRICS = (
    str(_FOLDER / name) for name in ("predictions.csv", "breasts.csv", "metrics.json")
)
_ROUNDING = 1e-6  # of a score that is computed twice from one table


def unlike_recorded(
    root: Path,
    snapshot: Snapshot,
    locked: Sequence[LockedStage],
    cache: Cache,
    bound: float,
    say: Say,
) -> tuple[Rescoring | None, list[Finding]]:
    """Score the recorded classifier on this machine, and hold the recorded predictions against it.

    Args:
        root: the auditor's clone.
        snapshot: of the version.
        locked: its stages as they were.
        cache: has their outs.
        bound: that a probability may be off by.
        say: told of the progress, line by line.

    Returns:
        The table that is further off; and what is not as recorded.
    """
    outs = outs_of(locked)
    stage = next((s for s in locked if {_PREDICTIONS, _BREASTS, _METRICS} <= s.outs.keys()), None)
    if stage is None:
        return None, [missing(f"no stage of the version made {_PREDICTIONS} and {_BREASTS}")]
    with materialise(root, snapshot) as folder:
        try:
            score_recorded(folder, stage, outs, say)
            found = [
                compare_predictions(
                    read_table(cache.path(outs[path]), schema),
                    read_table(folder / path, schema),
                    bound,
                )
                for path, schema in ((_PREDICTIONS, PREDICTIONS), (_BREASTS, BREASTS))
            ]
            then, now = _threshold(cache.path(outs[_METRICS])), _threshold(folder / _METRICS)
        except CommandError as error:
            return None, [wrong(f"the recorded classifier cannot be scored again: {error}")]
        except (UserError, ValueError) as error:
            return None, [wrong(f"the recorded predictions cannot be held against others: {error}")]
    rescoring = max(found, key=lambda table: table.largest)
    if not rescoring.holds:
        what = f"predictions are not what the recorded weights give: {rescoring.where}"
    elif abs(then - now) > bound:
        what = f"threshold {then:.6g} is not what the recorded weights give, which is {now:.6g}"
    else:
        return rescoring, []
    return rescoring, [wrong(f"the recorded {what}")]


def unlike_remade(
    folder: Path, outs: Mapping[str, str], cache: Cache, settings: Audit
) -> tuple[Equivalence | None, Points | None, list[Finding]]:
    """Hold the model that was trained again against the recorded one.

    Args:
        folder: where the pipeline ran again.
        outs: the recorded paths and hashes.
        cache: has the recorded outs.
        settings: the bounds.

    Returns:
        What came of it, the breasts that it rests on, and what speaks against the version.
    """
    try:
        then = _scored(cache.path(outs[_BREASTS]), cache.path(outs[_METRICS]))
        now = _scored(folder / _BREASTS, folder / _METRICS)
    except UserError as error:
        return None, None, [wrong(f"the models cannot be compared: {error}")]
    if forged := _other_scores(then.breasts, cache.path(outs[_METRICS])):
        return None, None, forged
    if difference := find_case_difference(then.breasts, now.breasts):
        return None, None, [wrong(difference)]
    found = compare_models(then, now, settings)
    both = then.breasts.merge(now.breasts, on=["patient_id", "laterality", "target"])
    points = Points(
        target=both["target"].tolist(),
        then=both["probability_x"].tolist(),
        now=both["probability_y"].tolist(),
        threshold_then=then.threshold,
        threshold_now=now.threshold,
    )
    if found.outcome == "equivalent":
        return found, points, []
    if found.outcome == "not equivalent":
        return found, points, [wrong(found.reason)]
    return found, points, [Finding(step="equivalence", kind="note", sentence=found.reason)]


def _other_scores(breasts: pd.DataFrame, metrics: Path) -> list[Finding]:
    """Scores of the recorded metrics that the recorded predictions do not give."""
    target = breasts["target"].to_numpy(dtype=np.int64)
    probability = breasts["probability"].to_numpy(dtype=np.float64)
    found = compute_areas(target, probability, np.ones((1, len(target))))[:, 0]
    recorded = flatten(read_json(metrics))
    unlike = []
    for name, is_ in zip(("average_precision", "auroc"), map(float, found), strict=True):
        was = recorded.get(f"test.breast.{name}.value")
        if not isinstance(was, int | float) or abs(was - is_) > _ROUNDING:
            unlike.append(
                wrong(f"test.breast.{name} of {_METRICS} is {was}, but {_BREASTS} gives {is_:.6g}")
            )
    return unlike


def _scored(breasts: Path, metrics: Path) -> Scored:
    """The test breasts of a run of the stage evaluate.

    Raises:
        UserError: if the files are not what that stage writes.
    """
    table = read_table(breasts, BREASTS)
    test = table[table["split"] == "test"].drop(columns="split")
    if test["target"].nunique() != 2:
        raise UserError(f"{breasts}: the test breasts are of one class")
    return Scored(test, _threshold(metrics))


def _threshold(metrics: Path) -> float:
    """The operating point by breast, as the stage evaluate chose it on validation."""
    value = flatten(read_json(metrics)).get("threshold.breast")
    if not isinstance(value, int | float):
        raise UserError(f"{metrics}: there is no threshold.breast")
    return float(value)
