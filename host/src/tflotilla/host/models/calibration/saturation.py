"""Which tensors saturate on samples that they were not calibrated with. Pure: arrays in, values out.

Ranges come from one half of the samples (an int8 file made with them), values from the other half, from the float
model: what falls outside is clipped to -128 or 127 and lost. A tensor is *saturated* when more than `MOST_CLIPPED`
of its values are, or when one lies further outside than `MOST_BEYOND` times the range's width.

What it does NOT do: say what clipping costs; a clipped value that no later layer listens to costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: One value in a thousand: as many as the bulk of a range leaves out on either side.
MOST_CLIPPED = 0.001
#: Half the range again: a peak that calibration has never seen the like of.
MOST_BEYOND = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one quantized tensor can hold, in real numbers: scale * (q - zero_point) for every q of its type."""

    lowest: float
    highest: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSaturation:
    """How much of one tensor falls outside what the other half of the samples calibrated."""

    tensor: str
    op: str
    operator: int
    #: The calibrated range, in real numbers.
    lowest: float
    highest: float
    #: What the held-out samples reach.
    minimum: float
    maximum: float
    #: Share of the held-out values that is clipped.
    clipped_share: float
    #: How far the furthest value lies outside, in widths of the range.
    beyond: float
    saturated: bool


def limits(dtype: str, scale: float, zero_point: int) -> Limits:
    """Return what a tensor of this type and quantization can hold."""
    edges = np.iinfo(dtype)
    return Limits(lowest=scale * (edges.min - zero_point), highest=scale * (edges.max - zero_point), scale=scale)


class HeldOut:
    """Adds up how much of one tensor is clipped, sample by sample."""

    def __init__(self, *, tensor: str, op: str, operator: int, calibrated: Limits) -> None:
        self._tensor, self._op, self._operator, self._limits = tensor, op, operator, calibrated
        self._clipped = self._count = 0
        self._minimum, self._maximum = np.inf, -np.inf

    def add(self, values: NDArray[Any]) -> None:
        """Take the values of one held-out sample."""
        if not values.size:
            return
        # What rounds to the outermost level is not clipped.
        half = self._limits.scale / 2
        least, greatest = float(values.min()), float(values.max())
        if least < self._limits.lowest - half:
            self._clipped += int(np.count_nonzero(values < self._limits.lowest - half))
        if greatest > self._limits.highest + half:
            self._clipped += int(np.count_nonzero(values > self._limits.highest + half))
        self._count += values.size
        self._minimum, self._maximum = min(self._minimum, least), max(self._maximum, greatest)

    def result(self) -> TensorSaturation | None:
        """Return what was seen, None when nothing was."""
        if not self._count:
            return None
        width = self._limits.highest - self._limits.lowest
        outside = max(self._limits.lowest - self._minimum, self._maximum - self._limits.highest, 0.0)
        share, beyond = self._clipped / self._count, outside / width if width > 0 else 0.0
        return TensorSaturation(
            tensor=self._tensor,
            op=self._op,
            operator=self._operator,
            lowest=self._limits.lowest,
            highest=self._limits.highest,
            minimum=self._minimum,
            maximum=self._maximum,
            clipped_share=share,
            beyond=beyond,
            saturated=share > MOST_CLIPPED or (self._clipped > 0 and beyond > MOST_BEYOND),
        )


def worst_first(found: Iterable[TensorSaturation]) -> tuple[TensorSaturation, ...]:
    """Sort by the share that is clipped, then by how far; equal ones in the model's order."""
    return tuple(sorted(found, key=lambda entry: (-entry.clipped_share, -entry.beyond, entry.operator)))
