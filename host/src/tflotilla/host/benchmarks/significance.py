"""Whether two series of latencies differ, and by how much: tests and intervals that hold for latencies as they are.

Latencies are no bell curve, and neighbours resemble each other (a clock that stays slow for a while). So: tests by
ranks, intervals by resampling, and both by blocks as long as the resemblance lasts. Seeded: equal series, equal
answers. What no single process can show is not in here: the next process of the same program may be some per cent
slower or faster by where its memory came to lie, which is what a tolerance is for.

Sources: Mann and Whitney 1947; Mood 1950, for other percentiles than the median; Efron 1979 and Künsch 1989 for the
bootstrap; Sokal 1997 and Wolff 2004 for how long a series remembers. What it does NOT do: decide what is a regression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000
_MEDIAN = 50.0
#: Sokal's window: far enough to see the correlation, near enough not to sum noise.
_WINDOW = 5
#: Standard deviations; what white noise may show by chance is taken as independence.
_CHANCE = 3.0
#: Runs so many memories apart do not resemble each other any more.
_APART = 1.5
_BLOCKS_PER_MEMORY = 4
_LEAST_BLOCKS = 8
_CHUNK = 100
#: On the logarithm of a ratio: nobody tells e^40 from infinity.
_FARTHEST = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A statistic's ratio, new over base, its interval at confidence 1 - alpha, and the p-value of no difference."""

    base: float
    new: float
    ratio: float
    low: float
    high: float
    p_value: float


def of_percentiles(base: Sequence[int], new: Sequence[int], percent: float, *, alpha: float, seed: int) -> Ratio:
    """Compare one percentile (nearest rank) of two series of positive latencies, in the order of the runs.

    The p-value is Mann and Whitney's for the median. For any other percentile it is that of Mood's test there: whether
    as many runs of each series are above the percentile of both (Fisher's exact test).
    """
    first, second = _array(base), _array(new)
    ranks = [max(math.ceil(round(percent * each.size / 100, 9)), 1) for each in (first, second)]
    values = [float(np.sort(each)[rank - 1]) for each, rank in zip((first, second), ranks, strict=True)]
    rng = np.random.default_rng(seed)
    resampled = [_resampled_percentile(each, rank, rng) for each, rank in zip((first, second), ranks, strict=True)]
    p_value = _mann_whitney(first, second) if percent == _MEDIAN else _mood(first, second, percent)
    return _ratio(values, resampled, alpha, p_value)


def of_means(base: Sequence[int], new: Sequence[int], *, alpha: float, seed: int) -> Ratio:
    """Compare the means of two series of positive latencies; the p-value is Mann and Whitney's."""
    first, second = _array(base), _array(new)
    rng = np.random.default_rng(seed)
    resampled = [_resampled(each, rng, lambda drawn: drawn.mean(axis=1)) for each in (first, second)]
    return _ratio([float(first.mean()), float(second.mean())], resampled, alpha, _mann_whitney(first, second))


def of_summaries(base: tuple[float, float, int], new: tuple[float, float, int], *, alpha: float) -> Ratio:
    """Compare two means where only (mean, standard deviation, runs) are known: Welch's t-test and the delta method.

    As if the runs were independent, which nobody can check from a summary.
    """
    from scipy import stats

    p_value = float(stats.ttest_ind_from_stats(*base, *new, equal_var=False).pvalue)
    error = math.sqrt(sum((deviation / mean) ** 2 / runs for mean, deviation, runs in (base, new)))
    reach = min(float(stats.norm.isf(alpha / 2)) * error, _FARTHEST)
    ratio = new[0] / base[0]
    return Ratio(
        base=base[0],
        new=new[0],
        ratio=ratio,
        low=ratio * math.exp(-reach),
        high=ratio * math.exp(reach),
        # Two summaries without any deviation have none; equal ones do not differ, others surely do.
        p_value=p_value if math.isfinite(p_value) else float(base[0] == new[0]),
    )


def memory(values: Sequence[int]) -> float:
    """Return how many runs a series remembers: the integrated autocorrelation time of its ranks, at least 1.

    Independent runs have 1; n runs are worth n / memory independent ones.
    """
    return _memory(_array(values))


def _array(values: Sequence[int]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _memory(values: Floats) -> float:
    from scipy import stats

    count = values.size
    ranks = stats.rankdata(values)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    if power == 0 or count < _LEAST_BLOCKS:
        return 1.0
    # Padded to twice the length: the transform's correlation would go round in a circle.
    transformed = np.fft.rfft(ranks, 2 * count)
    correlation = np.fft.irfft(transformed * np.conj(transformed))[:count] / power
    times = 2 * np.cumsum(correlation) - 1
    closed = np.nonzero(np.arange(count) >= _WINDOW * times)[0]
    window = int(closed[0]) if closed.size else count - 1
    # Taking the mean off took some of the correlation with it (Wolff 2004).
    return max(float(times[window]) * (1 + (2 * window + 1) / count), 1.0)


def _independent(remembered: float, count: int) -> bool:
    """Return whether white noise may look like that: the estimate's deviation, there, is √(2 (2 window + 1) / n)."""
    return remembered <= 1 + _CHANCE * math.sqrt(2 * (2 * _WINDOW + 1) / count)


def _block(values: Floats) -> int:
    remembered = _memory(values)
    if _independent(remembered, values.size):
        return 1
    return max(1, min(math.ceil(_BLOCKS_PER_MEMORY * remembered), values.size // _LEAST_BLOCKS))


def _apart(values: Floats) -> Floats:
    """Return runs so far from each other that they do not resemble each other any more."""
    remembered = _memory(values)
    step = 1 if _independent(remembered, values.size) else math.ceil(_APART * remembered)
    return values[:: min(step, max(values.size // 2, 1))]


def _mann_whitney(first: Floats, second: Floats) -> float:
    from scipy import stats

    return float(stats.mannwhitneyu(_apart(first), _apart(second), alternative="two-sided").pvalue)


def _mood(first: Floats, second: Floats, percent: float) -> float:
    from scipy import stats

    first, second = _apart(first), _apart(second)
    limit = np.percentile(np.concatenate([first, second]), percent, method="inverted_cdf")
    above = [int(np.count_nonzero(each > limit)) for each in (first, second)]
    table = [[above[0], first.size - above[0]], [above[1], second.size - above[1]]]
    return float(stats.fisher_exact(table).pvalue)


def _resampled_percentile(values: Floats, rank: int, rng: np.random.Generator) -> Floats:
    if _block(values) == 1:
        # Of n draws from n values the one of rank r is the value of rank ⌈n U⌉, U of rank r among n uniform numbers,
        # whose distribution is Beta(r, n - r + 1): what resampling would tend to, without resampling.
        count = values.size
        places = np.ceil(count * rng.beta(rank, count - rank + 1, RESAMPLES)).astype(np.int64)
        drawn: Floats = np.sort(values)[np.clip(places, 1, count) - 1]
        return drawn
    return _resampled(values, rng, lambda drawn: np.partition(drawn, rank - 1, axis=1)[:, rank - 1])


def _resampled(values: Floats, rng: np.random.Generator, statistic: Callable[[Floats], Floats]) -> Floats:
    """Return the statistic of so many series made of blocks of this one, which is bent to a circle for that."""
    count, length = values.size, _block(values)
    blocks = math.ceil(count / length)
    circle = np.concatenate([values, values[: length - 1]])
    found = []
    for _ in range(RESAMPLES // _CHUNK):
        starts = rng.integers(count, size=(_CHUNK, blocks))
        places = (starts[:, :, np.newaxis] + np.arange(length)).reshape(_CHUNK, -1)[:, :count]
        found.append(statistic(circle[places]))
    return np.concatenate(found)


def _ratio(values: Sequence[float], resampled: Sequence[Floats], alpha: float, p_value: float) -> Ratio:
    low, high = np.quantile(resampled[1] / resampled[0], [alpha / 2, 1 - alpha / 2])
    return Ratio(
        base=values[0],
        new=values[1],
        ratio=values[1] / values[0],
        low=float(low),
        high=float(high),
        p_value=p_value,
    )
