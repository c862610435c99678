"""Some of many, drawn fairly while they pass: which of a window's answers are shown to those who don't want all.

Algorithm L (Li: Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n))), ACM TOMS 1994): it says beforehand
which item is taken next, so that all others cost one comparison. Every item ends in the sample with the same chance.
What it does NOT do: keep an order; a later item may stand in an earlier one's place.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_NEVER = (1 << 63) - 1


class Reservoir(Generic[T]):
    """Up to `size` items of a stream. `uniform` gives numbers in [0, 1), as `random.random` does."""

    def __init__(self, size: int, uniform: Callable[[], float] = random.random) -> None:
        #: The number of the next item to be given to `put`, counted from 1; those before it are passed over.
        self.next_at = 1 if size > 0 else _NEVER
        self.items: list[T] = []
        self._size = size
        self._uniform = uniform
        self._weight = 1.0

    def put(self, item: T) -> None:
        """Take the item whose number `next_at` is."""
        if len(self.items) < self._size:
            self.items.append(item)
        else:
            self.items[int(self._uniform() * self._size)] = item
        self.next_at += 1
        if len(self.items) == self._size:
            self._weight *= math.exp(self._log_uniform() / self._size)
            # The weight is 1 only when the random number was: then the very next one is taken.
            passed = self._log_uniform() / math.log1p(-self._weight) if self._weight < 1 else 0.0
            self.next_at = min(self.next_at + int(min(passed, _NEVER)), _NEVER)

    def _log_uniform(self) -> float:
        return math.log(1.0 - self._uniform())
