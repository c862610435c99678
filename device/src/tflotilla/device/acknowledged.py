"""What collectors said they stored, while rows of it may still lie in the queue: ranges of numbers by boot. Pure.

Ranges are (first, last), both included. What comes late, twice or in any order changes nothing: it is a union.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Ranges = tuple[tuple[int, int], ...]


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same numbers as ascending ranges that don't touch; empty ones are left out."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def holds(ranges: Ranges, number: int) -> bool:
    """Return whether a number is in what `union` gave."""
    at = bisect_right(ranges, number, key=_first) - 1 if ranges else -1
    return at >= 0 and number <= ranges[at][1]


def _first(found: tuple[int, int]) -> int:
    return found[0]


class Acknowledged:
    """Grows by acknowledgements, shrinks when what they named is gone from the disk."""

    def __init__(self) -> None:
        self._ranges: dict[str, Ranges] = {}

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._ranges)

    def add(self, boot: str, ranges: Iterable[tuple[int, int]]) -> Ranges:
        """Add what is stored of a boot; return all that is held of it."""
        held = union((*self._ranges.get(boot, ()), *ranges))
        if held:
            self._ranges[boot] = held
        return held

    def holds(self, boot: str, number: int) -> bool:
        """Return whether a report was acknowledged."""
        return holds(self._ranges.get(boot, ()), number)

    def snapshot(self) -> Mapping[str, Ranges]:
        """Return what is held now, by boot."""
        return dict(self._ranges)

    def forget(self, done: Mapping[str, Ranges]) -> None:
        """Let go of what a snapshot held; a boot of which more came since is kept whole, which costs another look."""
        for boot, ranges in done.items():
            if self._ranges.get(boot) == ranges:
                del self._ranges[boot]
