"""Latencies that can be added up: percentiles of many windows, boards and versions together are right, not averaged.

A DDSketch (Masson, Rim, Lee: DDSketch, a fast and fully-mergeable quantile sketch with relative-error guarantees, VLDB
2019) with logarithmic buckets. Adding sketches up is adding counts up: `merged([of(a), of(b)]) == of(a + b)`, in any
order.

What it does NOT do: bound the number of buckets. From a nanosecond to an hour there are 2,890 at half a per cent, and
one board's latencies touch some dozens of them.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.messages import LatencySketch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

#: Half of what is promised to people (one per cent): the other half is for the rank, which falls between values.
RELATIVE_ERROR = 0.005


def of(values_ns: npt.NDArray[np.int64]) -> LatencySketch:
    """Return the sketch of latencies in nanoseconds (one dimension, any order); negative ones count as zero."""
    return of_sorted(np.sort(values_ns))


def of_sorted(values_ns: npt.NDArray[np.int64]) -> LatencySketch:
    """Return the sketch of latencies that ascend: the time goes with the buckets then, hardly with the values."""
    zeros = int(np.searchsorted(values_ns, 0, side="right"))
    positive = values_ns[zeros:].astype(np.float64)
    if positive.size == 0:
        return LatencySketch(relative_error=RELATIVE_ERROR, indices=(), counts=(), zeros=zeros)
    bounds = _bounds()
    lowest, highest = np.searchsorted(bounds, positive[[0, -1]], side="left").tolist()
    # How many are at most each bucket's upper bound; the differences are what is in each.
    up_to = np.searchsorted(positive, bounds[lowest : highest + 1], side="right")
    counts = np.diff(up_to, prepend=0)
    filled = np.flatnonzero(counts)
    return LatencySketch(
        relative_error=RELATIVE_ERROR,
        indices=tuple((filled + lowest).tolist()),
        counts=tuple(counts[filled].tolist()),
        zeros=zeros,
    )


class Sum:
    """Sketches added up; grows by what it is given, `percentile` reads it at any time."""

    __slots__ = ("_buckets", "count", "relative_error", "zeros")

    def __init__(self, relative_error: float = RELATIVE_ERROR) -> None:
        self.relative_error = relative_error
        #: How many values are in it.
        self.count = 0
        self.zeros = 0
        self._buckets: dict[int, int] = {}

    def add(self, sketch: LatencySketch) -> None:
        """Add what another one counted.

        Raises:
            ValueError: its buckets are others.

        """
        self._check(sketch.relative_error)
        buckets = self._buckets
        for index, count in zip(sketch.indices, sketch.counts, strict=True):
            buckets[index] = buckets.get(index, 0) + count
        self.zeros += sketch.zeros
        self.count += sketch.zeros + sum(sketch.counts)

    def merge(self, other: Sum) -> None:
        """Add another sum: as `add(other.sketch())`, at a fraction of its price. Raises ValueError."""
        self._check(other.relative_error)
        if not self._buckets:
            self._buckets = dict(other._buckets)
        else:
            buckets = self._buckets
            for index, count in other._buckets.items():
                buckets[index] = buckets.get(index, 0) + count
        self.zeros += other.zeros
        self.count += other.count

    def _check(self, relative_error: float) -> None:
        if relative_error != self.relative_error:
            message = f"a sketch of relative error {relative_error} can't be added to one of {self.relative_error}"
            raise ValueError(message)

    def sketch(self) -> LatencySketch:
        """Return all of it as one sketch."""
        indices = sorted(self._buckets)
        return LatencySketch(
            relative_error=self.relative_error,
            indices=tuple(indices),
            counts=tuple(self._buckets[index] for index in indices),
            zeros=self.zeros,
        )

    def percentile(self, percent: float) -> float | None:
        """Return the nearest-rank percentile in nanoseconds, within `relative_error` of it; None of nothing.

        Raises ValueError for a percentage that is not above 0 and at most 100.
        """
        return _nearest_rank(sorted(self._buckets.items()), self.count, self.zeros, self.relative_error, percent)


def merged(sketches: Iterable[LatencySketch]) -> LatencySketch:
    """Return the sum of sketches of one relative error; the empty one of none. Raises ValueError."""
    total: Sum | None = None
    for sketch in sketches:
        total = total or Sum(sketch.relative_error)
        total.add(sketch)
    return (total or Sum()).sketch()


def count(sketch: LatencySketch) -> int:
    """Return how many values a sketch holds."""
    return sketch.zeros + sum(sketch.counts)


def percentile(sketch: LatencySketch, percent: float) -> float | None:
    """Return the nearest-rank percentile in nanoseconds, within the sketch's relative error; None of nothing.

    A bucket stands for 2·g^i / (g + 1), which is within the relative error of everything in it.
    Raises ValueError for a percentage that is not above 0 and at most 100.
    """
    buckets = zip(sketch.indices, sketch.counts, strict=True)
    return _nearest_rank(buckets, count(sketch), sketch.zeros, sketch.relative_error, percent)


def _nearest_rank(
    buckets: Iterable[tuple[int, int]], values: int, zeros: int, relative_error: float, percent: float
) -> float | None:
    if not 0 < percent <= 100:  # noqa: PLR2004 - per cent
        message = f"no {percent} percentile"
        raise ValueError(message)
    if values == 0:
        return None
    rank = max(1, math.ceil(round(percent * values / 100, 9)))
    seen = zeros
    if rank <= seen:
        return 0.0
    for index, counted in buckets:
        seen += counted
        if seen >= rank:
            return value(index, relative_error)
    raise AssertionError


def below(sketch: LatencySketch, bound_ns: float) -> int:
    """Return how many values are at most `bound_ns`, to the bucket: for histograms of fixed bounds."""
    if bound_ns <= 0:
        return sketch.zeros if bound_ns == 0 else 0
    last = math.floor(math.log(bound_ns) / _log_gamma(sketch.relative_error) + 1e-9)
    return sketch.zeros + sum(n for index, n in zip(sketch.indices, sketch.counts, strict=True) if index <= last)


def value(index: int, relative_error: float) -> float:
    """Return what a bucket stands for, in nanoseconds."""
    gamma = (1 + relative_error) / (1 - relative_error)
    return float(2 * gamma**index / (gamma + 1))


@functools.cache
def _bounds() -> npt.NDArray[np.float64]:
    """Return the upper bound of every bucket that a nanosecond of 64 bits can be in, g^0 first."""
    log_gamma = _log_gamma(RELATIVE_ERROR)
    indices = np.arange(math.ceil(math.log(1 << 63) / log_gamma) + 1, dtype=np.float64)
    bounds: npt.NDArray[np.float64] = np.exp(indices * log_gamma)
    return bounds


def _log_gamma(relative_error: float) -> float:
    return math.log((1 + relative_error) / (1 - relative_error))
