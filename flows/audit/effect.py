"""What models do, compared where bytes may differ.

Two questions: do the recorded weights give the recorded predictions, and does the model that was
trained again do the same as the recorded one?

The first finds what bytes cannot show: weights that were exchanged afterwards, together with
everything that names them, would otherwise be judged by predictions that are not theirs.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from flows.audit.findings import missing, note, wrong
from flows.audit.record import Finding, Points
from flows.audit.reproduction import score_recorded
from flows.audit.subject import Subject
from flows.pipeline.known_outs import BREASTS_OUT, METRICS_OUT, PREDICTIONS_OUT
from flows.pipeline.lock_and_cache import Cache
from flows.processes.follow import CommandError
from flows.processes.words import Say
from flows.snapshots.snapshot import materialise
from flows.tracking.runs import flatten
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
from mammo.data.reading import read_table
from mammo.data.tables import BREASTS, PREDICTIONS

_ROUNDING = 1e-6  # of a score that is computed twice from one table


def rescore_recorded(
    subject: Subject, bound: float, say: Say
) -> tuple[Rescoring | None, list[Finding]]:
    """Score the recorded classifier on this machine, and compare with the recorded predictions.

    Args:
        subject: the version.
        bound: by which a probability may differ.
        say: reports the progress.

    Returns:
        The comparison of the table that differs more, and findings if it is not as recorded.
    """
    wanted = {PREDICTIONS_OUT, BREASTS_OUT, METRICS_OUT}
    stage = next((stage for stage in subject.locked if wanted <= stage.outs.keys()), None)
    if stage is None:
        return None, [missing(f"no stage of the version made {PREDICTIONS_OUT} and {BREASTS_OUT}")]
    recorded = {path: subject.cache.path(stage.outs[path]) for path in wanted}
    with materialise(subject.root, subject.snapshot) as folder:
        try:
            score_recorded(folder, stage, subject.outs, say)
            rescoring = _compare_tables(recorded, folder, bound)
            then = _read_threshold(recorded[METRICS_OUT])
            now = _read_threshold(folder / METRICS_OUT)
        except CommandError as error:
            return None, [wrong(f"the recorded classifier cannot be scored again: {error}")]
        except (UserError, ValueError) as error:
            return None, [wrong(f"the recorded predictions cannot be compared: {error}")]
    if not rescoring.holds:
        what = f"predictions are not what the recorded weights give: {rescoring.where}"
    elif abs(then - now) > bound:
        what = f"threshold {then:.6g} is not what the recorded weights give, which is {now:.6g}"
    else:
        return rescoring, []
    return rescoring, [wrong(f"the recorded {what}")]


def _compare_tables(recorded: Mapping[str, Path], folder: Path, bound: float) -> Rescoring:
    """Compare the recorded predictions with those in `folder`; return the worse comparison.

    Raises:
        UserError: if a table is not what the stage evaluate writes.
        ValueError: if the tables have other rows.
    """
    found = [
        compare_predictions(
            read_table(recorded[path], schema), read_table(folder / path, schema), bound
        )
        for path, schema in ((PREDICTIONS_OUT, PREDICTIONS), (BREASTS_OUT, BREASTS))
    ]
    return max(found, key=lambda table: table.largest)


def compare_remade(
    folder: Path, outs: Mapping[str, str], cache: Cache, settings: Audit
) -> tuple[Equivalence | None, Points | None, list[Finding]]:
    """Compare the model that was trained again with the recorded one.

    Args:
        folder: where the pipeline ran again.
        outs: the recorded paths and hashes.
        cache: has the recorded outs.
        settings: the bounds.

    Returns:
        The comparison, the breasts that it is of, and findings against the version.
    """
    try:
        then = _read_scored(cache.path(outs[BREASTS_OUT]), cache.path(outs[METRICS_OUT]))
        now = _read_scored(folder / BREASTS_OUT, folder / METRICS_OUT)
    except UserError as error:
        return None, None, [wrong(f"the models cannot be compared: {error}")]
    if forged := _check_scores(then.breasts, cache.path(outs[METRICS_OUT])):
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
    return found, points, [note(found.reason)]


def _check_scores(breasts: pd.DataFrame, metrics: Path) -> list[Finding]:
    """Find recorded scores that the recorded predictions do not give."""
    target = breasts["target"].to_numpy(dtype=np.int64)
    probability = breasts["probability"].to_numpy(dtype=np.float64)
    found = compute_areas(target, probability, np.ones((1, len(target))))[:, 0]
    recorded = flatten(read_json(metrics))
    unlike = []
    for name, is_ in zip(("average_precision", "auroc"), map(float, found), strict=True):
        was = recorded.get(f"test.breast.{name}.value")
        if not isinstance(was, int | float) or abs(was - is_) > _ROUNDING:
            unlike.append(
                wrong(
                    f"test.breast.{name} of {METRICS_OUT} is {was}, but {BREASTS_OUT} gives "
                    f"{is_:.6g}"
                )
            )
    return unlike


def _read_scored(breasts: Path, metrics: Path) -> Scored:
    """The test breasts of a run of the stage evaluate.

    Raises:
        UserError: if the files are not what that stage writes.
    """
    table = read_table(breasts, BREASTS)
    test = table[table["split"] == "test"].drop(columns="split")
    if test["target"].nunique() != 2:
        raise UserError(f"{breasts}: the test breasts are of one class")
    return Scored(test, _read_threshold(metrics))


def _read_threshold(metrics: Path) -> float:
    """The operating point by breast, as the stage evaluate chose it on validation."""
    value = flatten(read_json(metrics)).get("threshold.breast")
    if not isinstance(value, int | float):
        raise UserError(f"{metrics}: there is no threshold.breast")
    return float(value)
