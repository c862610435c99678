"""Errors of one tensor that add up sample by sample. Pure but for their own sums.

Sums are float64. Values that the reference itself has no finite number for are left out; where only the quantized run
has none, the noise is infinite. What it does NOT do: know tensors or files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.layers.report import BEST_DB

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Difference:
    """How far a tensor is from its reference."""

    def __init__(self) -> None:
        self._count = 0
        self._noise = 0.0
        self._signal = 0.0

    def add(self, actual: NDArray[Any], expected: NDArray[Any]) -> None:
        """Add one sample: two arrays of the same shape, real numbers."""
        ours, theirs = actual.ravel().astype(np.float64), expected.ravel().astype(np.float64)
        usable = np.isfinite(theirs)
        if not usable.all():
            ours, theirs = ours[usable], theirs[usable]
        error = ours - theirs
        self._count += error.size
        self._noise += float(np.dot(error, error)) if np.isfinite(error).all() else math.inf
        self._signal += float(np.dot(theirs, theirs))

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error; None without a value to compare, or when it is not finite."""
        return math.sqrt(self._noise / self._count) if self._count and math.isfinite(self._noise) else None

    @property
    def sqnr_db(self) -> float | None:
        """Signal to noise in dB, from -BEST_DB to BEST_DB (nothing differs); None without a value to compare."""
        if not self._count:
            return None
        if self._noise == 0.0:
            return BEST_DB
        if self._signal == 0.0 or not math.isfinite(self._noise):
            return -BEST_DB
        return max(-BEST_DB, min(BEST_DB, 10 * math.log10(self._signal / self._noise)))


class Extent:
    """Smallest and largest finite number of a tensor, and how many numbers lie outside of a range."""

    def __init__(self, lowest: float = -math.inf, highest: float = math.inf) -> None:
        self._limits = lowest, highest
        self._minimum, self._maximum = math.inf, -math.inf
        self._count = self._outside = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add one sample of real numbers."""
        finite = values[np.isfinite(values)]
        self._count += values.size
        if not finite.size:
            return
        lowest, highest = float(finite.min()), float(finite.max())
        self._minimum, self._maximum = min(self._minimum, lowest), max(self._maximum, highest)
        if lowest < self._limits[0] or highest > self._limits[1]:
            outside = (finite < self._limits[0]) | (finite > self._limits[1])
            self._outside += int(np.count_nonzero(outside))

    @property
    def minimum(self) -> float | None:
        """None when there was no finite number."""
        return self._minimum if math.isfinite(self._minimum) else None

    @property
    def maximum(self) -> float | None:
        """None when there was no finite number."""
        return self._maximum if math.isfinite(self._maximum) else None

    @property
    def outside_share(self) -> float | None:
        """Share of all numbers that lie outside; None when there were none."""
        return self._outside / self._count if self._count else None
