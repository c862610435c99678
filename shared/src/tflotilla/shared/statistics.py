"""Latency percentiles that are worth their name, and label counts of a stream.

Percentiles are order statistics (nearest rank), never interpolated: a p99 that was measured. What it does NOT do:
measure time.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from tflotilla.shared.contract.messages import LabelCount, StageLatency

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class LabelStatistics:
    """Counts labels and averages their scores over a window; holds one entry per label seen."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._sums: dict[str, float] = {}

    def add(self, label: str, score: float) -> None:
        """Count one winner."""
        self._counts[label] = self._counts.get(label, 0) + 1
        self._sums[label] = self._sums.get(label, 0.0) + score

    def take(self) -> tuple[LabelCount, ...]:
        """Return the window, most frequent first, and begin the next."""
        taken = tuple(
            LabelCount(label=label, count=count, mean_score=self._sums[label] / count)
            for label, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        )
        self._counts.clear()
        self._sums.clear()
        return taken
