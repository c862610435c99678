"""Latency percentiles that are worth their name, what is certain of them, drift, and label counts of a stream.

Percentiles are order statistics (nearest rank), never interpolated: a p99 that was measured. Their bounds are order
statistics too, and hold for any distribution as long as the runs are independent; whether latency moved over the run
is `drift`'s to say. What it does NOT do: measure time.
"""

from __future__ import annotations

import functools
import math
from array import array
from typing import TYPE_CHECKING

from tflotilla.shared.contract.benchmark import Distribution, Drift, PercentileFigure
from tflotilla.shared.contract.messages import LabelCount, StageLatency

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The percentiles of every `Distribution`, in order.
PERCENTILES = (5.0, 50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
_MIDDLE = 50.0
#: Of scores, as answers have them.
_DECIMALS = 6
#: So many equal parts of a run are held against each other: pairs stay few, and neighbours' noise averages out.
_DRIFT_BLOCKS = 30
#: The normal approximation of Mann-Kendall's statistic is good from 10 values on (Mann 1945).
_DRIFT_LEAST = 10
_DRIFT_P = 0.01
#: With enough runs any change is significant; less than that is not worth a word.
DRIFT_WORTH_SAYING = 0.02


def percentile(ordered_ns: Sequence[int], percent: float) -> int:
    """Return the nearest-rank percentile of an ascending, non-empty sequence. Raises ValueError."""
    if not ordered_ns or not 0 < percent <= 100:  # noqa: PLR2004 - per cent
        message = f"no {percent} percentile of {len(ordered_ns)} values"
        raise ValueError(message)
    # The product first: 99 / 100 is no float, and 0.99 * 100 would be 99.00000000000001 for some lengths.
    rank = math.ceil(round(percent * len(ordered_ns) / 100, 9))
    return ordered_ns[max(rank, 1) - 1]


def summarize(values_ns: Sequence[int]) -> StageLatency:
    """Return count, mean, extremes and percentiles of one stage's latencies.

    Raises:
        ValueError: there are none.

    """
    if not values_ns:
        message = "no latencies to summarize"
        raise ValueError(message)
    ordered = sorted(values_ns)
    return StageLatency(
        count=len(ordered),
        mean_ns=sum(ordered) / len(ordered),
        min_ns=ordered[0],
        p50_ns=percentile(ordered, 50),
        p90_ns=percentile(ordered, 90),
        p99_ns=percentile(ordered, 99),
        max_ns=ordered[-1],
    )


@functools.cache
def minimum_runs(percent: float, confidence: float = 0.99) -> int:
    """Return how many runs support a claim about a percentile: 11, 64, 130, 662 for p50, p90, p95, p99.

    The rule is MLPerf LoadGen's early stopping with one run allowed above the percentile: the least n for which a
    binomial of n trials with probability 1 - percent/100 has at most one success with probability ≤ 1 - confidence.

    Raises:
        ValueError: `percent` or `confidence` is not strictly between its limits.

    """
    if not (0 < percent < 100 and 0 < confidence < 1):  # noqa: PLR2004 - per cent
        message = f"no number of runs for percentile {percent} at confidence {confidence}"
        raise ValueError(message)
    below = percent / 100

    def doubt(runs: int) -> float:
        return float(below**runs + runs * (1 - below) * below ** (runs - 1))

    high = 2
    while doubt(high) > 1 - confidence:
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        if doubt(middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def upper_bound(ordered: Sequence[int], percent: float, confidence: float = CONFIDENCE) -> int | None:
    """Return what the true percentile does not exceed at that confidence; None with too few runs to say so.

    `ordered` ascends. Holds for any distribution: the percentile is above the run of rank n - t only if at most t of n
    runs were above it, which has the probability of at most t successes in a binomial of n and 1 - percent/100. The
    greatest t for which that is at most 1 - confidence is taken, and at least 1 (MLPerf LoadGen's early stopping, see
    `minimum_runs`), so that no bound is the very slowest run. LoadGen passes a Server run by the same rule; the
    estimate that it prints for SingleStream is one rank more cautious.

    Raises:
        ValueError: `percent` is not between 0 and 100, or `confidence` not between 0.5 and 1.

    """
    beyond = _runs_beyond(len(ordered), percent, confidence)
    return None if beyond is None else ordered[len(ordered) - 1 - beyond]


def lower_bound(ordered: Sequence[int], percent: float, confidence: float = CONFIDENCE) -> int | None:
    """Return what the true percentile is not below at that confidence: `upper_bound` seen from the other end."""
    beyond = _runs_beyond(len(ordered), 100 - percent, confidence)
    return None if beyond is None else ordered[beyond]


@functools.lru_cache(maxsize=4096)
def _runs_beyond(runs: int, percent: float, confidence: float) -> int | None:
    """Return how many of `runs` may lie beyond a bound of the percentile, None when not even one may."""
    if confidence < 0.5:  # noqa: PLR2004 - less than a coin's
        message = f"no bound at confidence {confidence}; give 0.5 or more"
        raise ValueError(message)
    if runs < minimum_runs(percent, confidence):
        return None
    above = 1 - percent / 100
    low = 1
    # A binomial's median is at most its mean rounded up, so there the probability is at least one half.
    high = math.ceil(runs * above) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        if _at_most(middle, runs, above) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def _at_most(count: int, runs: int, probability: float) -> float:
    """Return the binomial's cumulative probability, summed from `count` down until terms do not matter any more."""
    if count >= runs:
        return 1.0
    term = math.exp(
        math.lgamma(runs + 1)
        - math.lgamma(count + 1)
        - math.lgamma(runs - count + 1)
        + count * math.log(probability)
        + (runs - count) * math.log1p(-probability)
    )
    odds = (1 - probability) / probability
    total = 0.0
    for number in range(count, -1, -1):
        total += term
        if term <= total * 1e-17:
            break
        term *= number * odds / (runs - number + 1)
    return min(total, 1.0)


def distribution(values_ns: Sequence[int]) -> Distribution:
    """Return what these latencies are like: moments, extremes, and percentiles with their 99 % confident bounds.

    The median is the nearest-rank p50 (of an even number the lower of the middle two), and so is that of the absolute
    deviations; the standard deviation of one value is 0. A percentile with fewer runs than `minimum_runs` has neither
    value nor bound. Sums are exact. Sorting bounds the time: n log n.

    Raises:
        ValueError: there are none.

    """
    if not values_ns:
        message = "no latencies to describe"
        raise ValueError(message)
    ordered = sorted(values_ns)
    count = len(ordered)
    total = sum(ordered)
    squares = sum(value * value for value in ordered)
    # In whole numbers, so that nothing cancels: the sum of squared deviations is (n Σx² - (Σx)²) / n.
    variance = (count * squares - total * total) / (count * (count - 1)) if count > 1 else 0.0
    median = percentile(ordered, _MIDDLE)
    return Distribution(
        count=count,
        mean_ns=total / count,
        std_ns=math.sqrt(variance),
        min_ns=ordered[0],
        max_ns=ordered[-1],
        median_ns=median,
        mad_ns=percentile(sorted(abs(value - median) for value in ordered), _MIDDLE),
        percentiles=tuple(_figure(ordered, percent) for percent in PERCENTILES),
    )


def _figure(ordered: Sequence[int], percent: float) -> PercentileFigure:
    needed = minimum_runs(max(percent, 100 - percent), CONFIDENCE)
    bound = upper_bound(ordered, percent) if percent >= _MIDDLE else lower_bound(ordered, percent)
    value = None if len(ordered) < needed else percentile(ordered, percent)
    return PercentileFigure(percent=percent, value_ns=value, bound_ns=bound, runs_needed=needed)


def shortage(latency: Distribution) -> str | None:
    """Return `not enough runs for p99 (120 of 662), p99.9 (120 of 6636)`; None when every percentile is supported."""
    lacking = [
        f"p{figure.percent:g} ({latency.count} of {figure.runs_needed})"
        for figure in latency.percentiles
        if latency.count < figure.runs_needed
    ]
    return f"not enough runs for {', '.join(lacking)}" if lacking else None


def drift(values_ns: Sequence[int]) -> Drift:
    """Return whether latencies, in the order of the runs, went up or down.

    The run is cut into at most 30 equal parts. Over their medians goes Mann and Kendall's test (Mann 1945, with
    Kendall's correction for ties and for continuity), and the change is Theil and Sen's slope (Sen 1968), from the
    beginning of the first part to the end of the last, relative to the median of all. Drifting is p < 0.01 and a
    change of at least 2 %. Fewer than 10 runs never drift: nothing could be told from them.
    """
    count = len(values_ns)
    if count < _DRIFT_LEAST:
        return Drift(change=0.0, p_value=1.0, drifting=False)
    parts = min(count, _DRIFT_BLOCKS)
    medians = [
        percentile(sorted(values_ns[count * n // parts : count * (n + 1) // parts]), _MIDDLE) for n in range(parts)
    ]
    p_value = _mann_kendall(medians)
    slopes = sorted(
        (later - earlier) / distance
        for distance in range(1, parts)
        for earlier, later in zip(medians, medians[distance:], strict=False)
    )
    middle = len(slopes) // 2
    slope = slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2
    level = percentile(sorted(values_ns), _MIDDLE)
    change = slope * parts / level if level > 0 else 0.0
    return Drift(change=change, p_value=p_value, drifting=p_value < _DRIFT_P and abs(change) >= DRIFT_WORTH_SAYING)


def _mann_kendall(values: Sequence[int]) -> float:
    """Return the two-sided p-value of no trend, by the normal approximation."""
    count = len(values)
    score = sum(
        (later > earlier) - (later < earlier) for number, earlier in enumerate(values) for later in values[number + 1 :]
    )
    ties = [values.count(value) for value in set(values)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    if score == 0 or variance <= 0:
        return 1.0
    return math.erfc((abs(score) - 1) / math.sqrt(2 * variance))


class LabelStatistics:
    """Counts labels and averages their scores over a window; holds eight bytes per winner."""

    def __init__(self) -> None:
        #: Label → the scores it won with: one look and one append beside an invoke that counts; sums come at the end.
        self._labels: dict[str, array[float]] = {}

    def add(self, label: str, score: float) -> None:
        """Count one winner."""
        try:
            self._labels[label].append(score)
        except KeyError:
            self._labels[label] = array("d", (score,))

    def scores(self) -> array[float]:
        """Return every winner's score, in no order that means anything."""
        found = array("d")
        for scores in self._labels.values():
            found.extend(scores)
        return found

    def take(self) -> tuple[LabelCount, ...]:
        """Return the window, most frequent first, and begin the next.

        Deviations are taken from the mean, once it is known: nothing cancels. Both are rounded to a millionth, as the
        scores themselves are.
        """
        taken = []
        for label, scores in sorted(self._labels.items(), key=lambda item: (-len(item[1]), item[0])):
            count = len(scores)
            mean = math.fsum(scores) / count
            taken.append(
                LabelCount(
                    label=label,
                    count=count,
                    mean_score=round(mean, _DECIMALS),
                    std_score=round(math.dist(scores, (mean,) * count) / math.sqrt(count), _DECIMALS),
                )
            )
        self._labels.clear()
        return tuple(taken)
