"""Two models on the same breasts: the women are resampled, with the same draw for both models.

Because of the pairs, the difference of two models is known far better than the score of either.
Whole women are drawn because the breasts of one woman are not independent.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtrit

from mammo.evaluation.metrics import Floats, Ints

_SEED = 20  # of the draws
_DIGITS = 5  # significant digits of a probability: another batch or process rounds the next ones
_AT_ONCE = 2_000_000  # weights drawn at once: 16 MB


def round_probabilities(probability: "pd.Series[float]") -> list[float]:
    """Round probabilities to the digits that do not depend on the batch or the process.

    Two models whose probabilities differ in the sixth digit only must order the breasts alike.
    """
    return [float(f"{value:.{_DIGITS}g}") for value in probability]


def resample_women(women: "pd.Series[str]", target: Ints, resamples: int) -> Iterator[Floats]:
    """Yield how often each breast counts in each resample of the women, many resamples at a time.

    As many women as there are get drawn with replacement; a woman drawn twice counts twice, with
    both her breasts. The same women give the same draws.

    Args:
        women: (N,) the woman of each breast.
        target: (N,) of 0 and 1.
        resamples: how many; those whose breasts are all of one class are left out.

    Yields:
        Arrays (R, N), whose R add up to at most `resamples`.
    """
    codes, names = pd.factorize(women, sort=True)
    generator = np.random.default_rng(_SEED)
    size = max(1, _AT_ONCE // len(target))
    for start in range(0, resamples, size):
        weights = _draw_women(generator, min(size, resamples - start), len(names))[:, codes]
        positives = weights @ target
        yield weights[(positives > 0) & (positives < weights.sum(axis=1))]


def find_tail(women: "pd.Series[str]", target: Ints, error: float) -> float:
    """Which share of the draws lies beyond a bound that errs with probability `error`.

    The plain percentile is too narrow where there are few cases: it errs more often than it says.
    The expanded percentile (Hesterberg 2015, The American Statistician 69: 371) puts the quantile
    of Student's t, for a standard deviation of n - 1, instead of the normal one. n is the
    number of women with a positive breast, or of those without, whichever is smaller.

    Args:
        women: (N,) the woman of each breast.
        target: (N,) of 0 and 1.
        error: with which the bound may be wrong, in (0, 0.5].

    Returns:
        In [0, `error`]: 0 if there is one such woman only.
    """
    sick = pd.Series(target, index=women.index).groupby(women).max()
    count = int(min(sick.sum(), len(sick) - sick.sum()))
    if count < 2:
        return 0.0
    return float(ndtr(np.sqrt(count / (count - 1)) * stdtrit(count - 1, error)))


def find_bound(estimate: float, draws: Floats, tail: float) -> float:
    """The lower one-sided bound of a difference: the lower of two.

    One is the quantile of the draws. The other takes their standard deviation, so many times as the
    tail is of the normal distribution: where the draws are skewed, one of both errs too often. That
    one is at least the lowest draw: what is better in each of them is never called worse.

    Args:
        estimate: the difference itself.
        draws: (R,) the difference in each resample.
        tail: as `find_tail` gives it.
    """
    quantile = float(np.quantile(draws, tail))
    deviation = float(np.std(draws))
    if tail == 0 or deviation == 0:
        return quantile
    return min(quantile, max(float(draws.min()), estimate + float(ndtri(tail)) * deviation))


def compute_areas(target: Ints, probability: Floats, weights: Floats) -> Floats:
    """Average precision and auROC of many resamples at once; the formulas are `measure`'s.

    Args:
        target: (N,) of 0 and 1.
        probability: (N,), in any order.
        weights: (R, N), not negative; in each row both targets have a positive sum.

    Returns:
        An array (2, R).
    """
    order = np.argsort(-probability, kind="stable")
    target, probability, weights = target[order], probability[order], weights[:, order]
    ends = np.append(np.flatnonzero(np.diff(probability)), len(probability) - 1)
    hits = np.cumsum(weights * target, axis=1)[:, ends]
    alarms = np.cumsum(weights * (1 - target), axis=1)[:, ends]
    called = hits + alarms
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    recall, false_rate = hits / hits[:, -1:], alarms / alarms[:, -1:]
    steps = np.diff(recall, axis=1, prepend=0.0)
    start = np.zeros((len(weights), 1))
    auroc = np.trapezoid(np.hstack([start, recall]), np.hstack([start, false_rate]), axis=1)
    return np.stack([np.sum(steps * precision, axis=1), auroc])


def _draw_women(generator: np.random.Generator, resamples: int, women: int) -> Floats:
    """How often each woman was drawn: (resamples, women)."""
    drawn = generator.integers(0, women, size=(resamples, women))
    cells = (drawn + women * np.arange(resamples)[:, None]).ravel()
    counts = np.bincount(cells, minlength=resamples * women)
    return counts.reshape(resamples, women).astype(np.float64)
