"""What a model is judged by, and how much of it one variant loses against another. Pure: numbers in, numbers out.

    accuracy   share of samples whose best class is the right one
    map        mean average precision at an intersection over union of 0.5 (`average_precision`)
    cosine     cosine of the angle between an output and the float model's, mean over the samples
    sqnr       signal-to-quantization-noise ratio against the float model, in dB: 10 log10(sum(r²) / sum((r - x)²))

A drop is a loss: 0 is none, and `--max-drop 0.01` means the same size of loss for each of them. What it does NOT do:
run models, or average over outputs: a model is as good as its worst output.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What an output without any noise is given: infinity is no number of JSON, and no float32 comes near.
BEST_SQNR_DB = 200.0

#: Finer than any share of samples, coarser than what binary fractions add to a difference of two.
_SHARE_DECIMALS = 12


class Metric(StrEnum):
    """One number that says how good a model is; higher is better in all of them."""

    ACCURACY = "accuracy"
    MAP = "map"
    COSINE = "cosine"
    SQNR = "sqnr"

    @property
    def needs_labels(self) -> bool:
        """Whether it compares with the truth (else with the float model)."""
        return self in (Metric.ACCURACY, Metric.MAP)

    @property
    def of_the_float_model(self) -> float | None:
        """What the float model itself has, where that needs no measuring."""
        return {Metric.COSINE: 1.0, Metric.SQNR: BEST_SQNR_DB}.get(self)


def drop(metric: Metric, float_value: float, value: float) -> float:
    """Return how much is lost against the float model; negative where something is won.

    Args:
        metric: what the values are of.
        float_value: of the float model; not used for cosine and sqnr, which are against it already.
        value: of the variant.

    Returns:
        accuracy, map: the difference of the shares; cosine: 1 - cosine; sqnr: noise power / signal power, so that
        0.01 is 20 dB.

    """
    if metric is Metric.COSINE:
        return 1.0 - value
    if metric is Metric.SQNR:
        return 0.0 if value >= BEST_SQNR_DB else math.pow(10.0, -value / 10.0)
    # 0.675 - 0.665 is more than 0.01 in binary: the loss of exactly what is allowed must not count as more.
    return round(float_value - value, _SHARE_DECIMALS)


def cosine(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the cosine of the angle between two tensors read as vectors, -1..1.

    1 when both are all zeros (or equal), 0 when one of them is, or is not finite.
    """
    one, other = (np.asarray(tensor, dtype=np.float64).reshape(-1) for tensor in (reference, actual))
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return 0.0
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if lengths == 0.0:
        return 1.0 if not one.any() and not other.any() else 0.0
    return max(-1.0, min(1.0, float(one @ other) / lengths))


def sqnr_db(signal_power: float, noise_power: float) -> float:
    """Return the ratio of two powers (or sums of squares) in dB, at most `BEST_SQNR_DB`.

    Noise that is not finite is infinite noise; noise on a silent signal has no ratio, and counts as 0 dB: as loud as
    an output that is all zeros where it should not be.
    """
    if not math.isfinite(noise_power):
        return -BEST_SQNR_DB
    if noise_power <= 0.0:
        return BEST_SQNR_DB
    if signal_power <= 0.0:
        return 0.0
    return max(-BEST_SQNR_DB, min(BEST_SQNR_DB, 10.0 * math.log10(signal_power / noise_power)))
