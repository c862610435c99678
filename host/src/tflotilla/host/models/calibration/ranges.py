"""What range each activation of a float model takes on calibration samples. Pure: arrays in, values out.

Minimum, maximum, zeros and dead channels are exact; the bulk (the 0.1 % and 99.9 % quantiles) is that of at most
`KEPT_PER_SAMPLE` values per tensor and sample, taken at equal steps: the same ones every time.

A tensor is *ruled by outliers* when its bulk takes less than `LEAST_BULK_SHARE` of its range. int8 has 256 levels
for the range that the rarest value asks for: below a quarter, 99.8 % of the values share fewer than 64, which is
two bits lost.

What it does NOT do: run models, or judge whether lost bits cost accuracy; the curve over the number of samples
shows that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

KEPT_PER_SAMPLE = 4096
QUANTILES = (0.001, 0.999)
LEAST_BULK_SHARE = 0.25
#: Their results have a fixed range in the quantization specification, whatever the values.
FIXED_RANGE_OPS = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "LOG_SOFTMAX"})
#: They hand on their input's values: what is to be said of those is said where they were made.
MOVING_OPS = frozenset(
    [
        "RESHAPE",
        "TRANSPOSE",
        "SQUEEZE",
        "EXPAND_DIMS",
        "PACK",
        "UNPACK",
        "SPLIT",
        "SPLIT_V",
        "SLICE",
        "STRIDED_SLICE",
        "CONCATENATION",
        "GATHER",
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "MAX_POOL_2D",
        "SPACE_TO_DEPTH",
        "DEPTH_TO_SPACE",
        "SPACE_TO_BATCH_ND",
        "BATCH_TO_SPACE_ND",
        "RESIZE_NEAREST_NEIGHBOR",
        "REVERSE_V2",
        "TILE",
        "IDENTITY",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """The values of one activation on all samples, in real numbers."""

    tensor: str
    #: The operator that makes it; "INPUT" for the model's own inputs.
    op: str
    #: Its place in the float file; -1 for inputs.
    operator: int
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    #: The 0.1 % and 99.9 % quantiles.
    low: float
    high: float
    #: Share of the range from `minimum` to `maximum` (and 0) that `low` to `high` (and 0) takes; 1 is best.
    bulk_share: float
    #: Share of values that are exactly 0.
    zero_share: float
    #: Channels (the last axis) that are one and the same number on every sample.
    dead_channels: int
    channels: int
    #: One and the same number everywhere.
    constant: bool
    ruled_by_outliers: bool


class Observed:
    """Adds up what one tensor shows, sample by sample."""

    def __init__(self, *, tensor: str, op: str, operator: int) -> None:
        self._tensor, self._op, self._operator = tensor, op, operator
        self._shape: tuple[int, ...] = ()
        self._least = np.empty(0)
        self._greatest = np.empty(0)
        self._kept: list[NDArray[Any]] = []
        self._zeros = self._count = 0

    def add(self, values: NDArray[Any]) -> None:
        """Take the values of one sample; empty ones (nothing found) say nothing."""
        if not values.size:
            return
        # Each channel is one column; a tensor without channels has one.
        columns = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        least, greatest = columns.min(axis=0), columns.max(axis=0)
        if self._count and len(least) != len(self._least):
            # The last axis is no axis of channels: its length depends on the sample.
            self._least, self._greatest = self._least.min(keepdims=True), self._greatest.max(keepdims=True)
            least, greatest = least.min(keepdims=True), greatest.max(keepdims=True)
        self._least = np.minimum(self._least, least) if self._count else least
        self._greatest = np.maximum(self._greatest, greatest) if self._count else greatest
        self._shape = values.shape
        flat = values.reshape(-1)
        step = -(-flat.size // KEPT_PER_SAMPLE)
        # A step that shares no factor with the number of channels visits all of them.
        while step > 1 and np.gcd(step, columns.shape[1]) > 1:
            step += 1
        self._kept.append(flat[::step].copy())
        self._zeros += flat.size - int(np.count_nonzero(flat))
        self._count += flat.size

    def result(self) -> TensorRange | None:
        """Return what was seen, None when nothing was."""
        if not self._count:
            return None
        low, high = (float(value) for value in np.quantile(np.concatenate(self._kept), QUANTILES))
        minimum, maximum = float(self._least.min()), float(self._greatest.max())
        share = bulk_share(minimum, maximum, low, high)
        dead = int((self._least == self._greatest).sum())
        judged = self._op not in FIXED_RANGE_OPS and self._op not in MOVING_OPS
        return TensorRange(
            tensor=self._tensor,
            op=self._op,
            operator=self._operator,
            shape=self._shape,
            minimum=minimum,
            maximum=maximum,
            low=low,
            high=high,
            bulk_share=share,
            zero_share=self._zeros / self._count,
            dead_channels=dead if len(self._least) > 1 else 0,
            channels=len(self._least),
            constant=minimum == maximum,
            ruled_by_outliers=judged and share < LEAST_BULK_SHARE,
        )


def bulk_share(minimum: float, maximum: float, low: float, high: float) -> float:
    """Return which share of a tensor's range its bulk takes; both include 0, as every quantized range does."""
    width = max(maximum, 0.0) - min(minimum, 0.0)
    return 1.0 if width <= 0.0 else (max(high, 0.0) - min(low, 0.0)) / width


def worst_first(found: Iterable[TensorRange]) -> tuple[TensorRange, ...]:
    """Sort: those ruled by outliers first, then by the share that the bulk takes; what can't be ruled so comes last."""
    unjudged = FIXED_RANGE_OPS | MOVING_OPS
    return tuple(
        sorted(
            found,
            key=lambda entry: (not entry.ruled_by_outliers, entry.op in unjudged, entry.bulk_share, entry.operator),
        )
    )
