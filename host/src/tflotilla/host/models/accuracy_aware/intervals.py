"""What a drop in accuracy that was measured on so many samples can claim. Pure.

Both models answer the same samples, so only those count that one gets right and the other wrong (McNemar's table).
The interval is that of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions"
(Statistics in Medicine 24, 2005): half a sample is added to each of the four cells, then

    d = (lost - won) / n        se = sqrt(lost + won - (lost - won)² / n) / n        d ± 1.96 se

What it does NOT do: judge other metrics than accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959964
_ADDED = 0.5
#: With fewer samples than this at stake, chance decides what a search finds.
LEAST_AT_STAKE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The 95 % interval of a drop, with what it was made from."""

    low: float
    high: float
    samples: int
    #: Right in float, wrong in the variant; and the other way round.
    lost: int
    won: int


def paired(*, lost: int, won: int, samples: int) -> Interval:
    """Return the 95 % interval of the drop of a variant.

    Args:
        lost: samples that the float model has right and the variant wrong.
        won: the other way round.
        samples: how many there are in all.

    """
    total = samples + 4 * _ADDED
    more, fewer = lost + _ADDED, won + _ADDED
    middle = (more - fewer) / total
    spread = _Z95 * math.sqrt(max(0.0, more + fewer - (more - fewer) ** 2 / total)) / total
    return Interval(low=middle - spread, high=middle + spread, samples=samples, lost=lost, won=won)


def at_stake(max_drop: float, samples: int) -> int:
    """Return how many samples of all may be lost."""
    return math.floor(max_drop * samples + 1e-9)


def is_enough_to_split(max_drop: float, samples: int) -> bool:
    """Whether each half of the samples still tells the bound from chance."""
    return at_stake(max_drop, samples // 2) >= LEAST_AT_STAKE
