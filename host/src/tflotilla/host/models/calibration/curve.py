"""How good the int8 model is with 1, 2, 5, 10, … calibration samples, and from how many on more change nothing. Pure.

Samples are taken in an order whose every beginning is spread over all of them (van der Corput's sequence: the bits of
the place, mirrored), so "the first 10" of a folder sorted by class are of many classes.

What it does NOT do: quantize or run anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_STEPS = (1, 2, 5)
#: Differences up to these are none: a tenth of a bit, and what one sample in a hundred may decide by chance.
SAME_SQNR_DB = 0.6
SAME_SHARE = 0.01


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
    """Return 0..total-1 in an order whose beginnings are spread evenly."""
    bits = max(1, (total - 1).bit_length())
    mirrored = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(1 << bits))
    return [place for place in mirrored if place < total]


def half(total: int) -> int:
    """Return how many of the first in `spread_order` are every other one of the data: those at even places."""
    return (total + 1) // 2


def ladder(total: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50, … up to `total`, and `total` itself."""
    found, power = [], 1
    while power < total:
        found += [step * power for step in _STEPS if step * power < total]
        power *= 10
    return (*found, total)


def enough(points: Sequence[CurvePoint]) -> int | None:
    """Return the least number of samples from which on more change nothing; None when the last step still did."""
    if len(points) < 2:  # noqa: PLR2004 - one point shows no change
        return None
    last = points[-1]
    found = None
    for point in reversed(points):
        if not _same(point, last):
            break
        found = point.samples
    return None if found == last.samples else found


def _same(one: CurvePoint, other: CurvePoint) -> bool:
    pairs = (
        (one.sqnr_db, other.sqnr_db, SAME_SQNR_DB),
        (one.agreement, other.agreement, SAME_SHARE),
        (one.accuracy, other.accuracy, SAME_SHARE),
    )
    return all(a is None or b is None or abs(a - b) <= allowed + 1e-9 for a, b, allowed in pairs)
