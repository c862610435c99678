"""How good the int8 model is with 1, 2, 5, 10, … calibration samples, and from how many on more change nothing. Pure.

Samples are taken in an order whose every beginning is spread over all of them (van der Corput's sequence: the bits of
the place, mirrored), so "the first 10" of a folder sorted by class are of many classes.

What it does NOT do: quantize or run anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_STEPS = (1, 2, 5)
_SEED = 20240229
#: Differences up to these are none: a fraction of a bit, and half a point of accuracy. Above `GOOD_SQNR_DB` answers
#: are off by less than a fiftieth of what they vary, and how much less depends on chance.
SAME_SQNR_DB = 1.0
GOOD_SQNR_DB = 35.0
SAME_SHARE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The int8 model calibrated with the first `samples` samples."""

    samples: int
    #: Of the worst output against the float model, in dB; None where outputs can't be compared.
    sqnr_db: float | None
    #: Share of samples with the float model's best class; None for models that are no classifiers.
    agreement: float | None
    #: On the labelled data; None without.
    accuracy: float | None = None


def spread_order(total: int) -> list[int]:
    """Return 0..total-1 in an order whose beginnings are spread evenly, the same every time.

    Neighbours change places by lot: else every second of data whose classes come in turns would be of one class.
    """
    bits = max(1, (total - 1).bit_length())
    mirrored = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(1 << bits))
    exchanged = np.random.Generator(np.random.PCG64(_SEED)).random(total // 2) < 0.5  # noqa: PLR2004 - a coin
    pairs = [pair * 2 + int(change) for pair, change in enumerate(exchanged)]
    return [place if place // 2 == total // 2 else place % 2 ^ pairs[place // 2] for place in mirrored if place < total]


def half(total: int) -> int:
    """Return how many of the first in `spread_order` calibrate when the others are held out."""
    return (total + 1) // 2


def ladder(total: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50, … up to `total`, and `total` itself."""
    found, power = [], 1
    while power < total:
        found += [step * power for step in _STEPS if step * power < total]
        power *= 10
    return (*found, total)


def enough(points: Sequence[CurvePoint], *, compared_on: int, labelled: int) -> int | None:
    """Return the least number of samples from which on more change nothing; None when the last step still did.

    Args:
        points: in ascending order of samples.
        compared_on: how many samples `agreement` is of: one more or less may be chance.
        labelled: the same of `accuracy`.

    """
    if len(points) < 2:  # noqa: PLR2004 - one point shows no change
        return None
    last = points[-1]
    found = None
    for point in reversed(points):
        pairs = (
            (_capped(point.sqnr_db), _capped(last.sqnr_db), SAME_SQNR_DB),
            (point.agreement, last.agreement, max(SAME_SHARE, 1 / max(compared_on, 1))),
            (point.accuracy, last.accuracy, max(SAME_SHARE, 1 / max(labelled, 1))),
        )
        if any(a is not None and b is not None and abs(a - b) > allowed + 1e-9 for a, b, allowed in pairs):
            break
        found = point.samples
    return None if found == last.samples else found


def _capped(sqnr_db: float | None) -> float | None:
    return None if sqnr_db is None else min(sqnr_db, GOOD_SQNR_DB)
