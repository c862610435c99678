"""How far two counts of the same things are apart: the population stability index, and what chance alone makes of it.

    PSI = Σ (pᵢ - qᵢ) · ln(pᵢ / qᵢ)

over the shares of each category in two samples. Where nothing changed, PSI is about χ² with (categories - 1) degrees
of freedom times (1/n + 1/m), n and m being the sizes of the samples (Yurdakul, Statistical Properties of Population
Stability Index, 2018): with few counts a large PSI means nothing. Categories that both samples together hardly saw are
counted as one, because that χ² is none there (Cochran's rule), and half a count is added to each, so that a category
that is missing on one side has a finite share (Jeffreys).
What it does NOT do: know that pictures of one camera resemble each other; its samples count as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A change that chance makes once in 10,000 comparisons is none yet: a large fleet makes many.
CONFIDENCE = 0.9999
#: Categories seen less often than that, in both samples together, are counted as one.
_RARE = 10
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Psi:
    """`value` beside what chance alone exceeds once in 10,000 times."""

    value: float
    chance: float


def psi(before: Mapping[Key, int], after: Mapping[Key, int]) -> Psi:
    """Return the index of two counts; both must have something in them. Raises ValueError."""
    n, m = sum(before.values()), sum(after.values())
    if n <= 0 or m <= 0:
        message = "no index of nothing"
        raise ValueError(message)
    pairs: list[tuple[int, int]] = []
    rare = (0, 0)
    for key in {**before, **after}:
        old, new = before.get(key, 0), after.get(key, 0)
        if old + new < _RARE:
            rare = (rare[0] + old, rare[1] + new)
        else:
            pairs.append((old, new))
    if any(rare):
        pairs.append(rare)
    categories = len(pairs)
    value = 0.0
    for old, new in pairs:
        p, q = (old + 0.5) / (n + categories / 2), (new + 0.5) / (m + categories / 2)
        value += (p - q) * math.log(p / q)
    if categories == 1:
        return Psi(value=0.0, chance=0.0)
    return Psi(value=value, chance=chi_square(categories - 1) * (1 / n + 1 / m))


@lru_cache(maxsize=4096)
def chi_square(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the quantile of χ², by Wilson and Hilferty's cube root (1931); never below it, and at most 8 % above."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NormalDist().inv_cdf(confidence) * math.sqrt(spread)) ** 3)
