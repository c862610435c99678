"""What is owed to boards: which of their numbers are stored durably, said in ranges, a while after they came.

    debts.stored("pi-1", boot, 17, now)        # also for what came twice: its board doesn't know yet
    for board, ack in debts.due(now): ...      # to be published

Rules it keeps: only what was told `stored` is acked; who waits longest is acked first, so many boards a second, so that
a small fleet hears within a moment and spares its flash, and of a large one no board waits into its repetitions (30 s);
memory is bounded, and what is forgotten for it is acked when its board sends it once more.
An ack that is lost does no harm: its board sends again, and is acked for the duplicate.
What it does NOT do: publish, look at a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from tflotilla.shared.contract.messages import Ack

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Reports of one moment are acked together.
GATHERED_S = 0.3
#: Each is a message that the broker carries: at 10,000 boards every one is acked every ten seconds.
PER_SECOND = 1000
#: In one ack; the rest is in the next.
MOST_RANGES = 200
_MOST_BOOTS = 100_000


class Debts:
    """Numbers that are stored and not acked yet, by board and boot; and up to where everything is."""

    def __init__(self, *, per_second: float = PER_SECOND, gathered_s: float = GATHERED_S) -> None:
        self._per_second = per_second
        self._gathered_s = gathered_s
        #: In order of what waits longest: since when, and which numbers in ranges.
        self._owed: dict[tuple[str, str], tuple[float, list[list[int]]]] = {}
        #: Up to where all from 1 is stored; only of boots that were heard from the beginning.
        self._whole: dict[tuple[str, str], int] = {}
        self._asked_at: float | None = None
        self._allowance = 0.0

    def __len__(self) -> int:
        """How many boots wait for an ack."""
        return len(self._owed)

    def stored(self, board: str, boot: str, number: int, now: float) -> None:
        """Take a number that is durable."""
        key = board, boot
        owed = self._owed.get(key)
        if owed is None:
            if len(self._owed) >= _MOST_BOOTS:
                del self._owed[next(iter(self._owed))]
            owed = self._owed[key] = now, []
        _add(owed[1], number)

    def due(self, now: float, *, everything: bool = False) -> Iterator[tuple[str, Ack]]:
        """Give what is to be said now: (board, ack); with `everything`, at the end, all there is.

        What is not taken out of the iterator stays owed.
        """
        since = now if self._asked_at is None else self._asked_at
        self._asked_at = now
        self._allowance = min(self._per_second, self._allowance + self._per_second * max(0.0, now - since))
        while self._owed and (everything or self._allowance >= 1):
            key = next(iter(self._owed))
            waiting_since, ranges = self._owed[key]
            # A clock that was set back must not silence us.
            if not everything and 0 <= now - waiting_since < self._gathered_s:
                return
            self._allowance -= 1
            del self._owed[key]
            if len(ranges) > MOST_RANGES:
                self._owed[key] = now, ranges[MOST_RANGES:]
                ranges = ranges[:MOST_RANGES]
            yield key[0], self._ack(key, ranges)

    def _ack(self, key: tuple[str, str], ranges: list[list[int]]) -> Ack:
        whole = self._whole.get(key, 0)
        rest = []
        for first, last in ranges:
            if first <= whole + 1:
                whole = max(whole, last)
            else:
                rest.append((first, last))
        if whole:
            self._whole.pop(key, None)
            self._whole[key] = whole
            while len(self._whole) > _MOST_BOOTS:
                # The one that was acked longest ago: from now on its numbers are said in ranges.
                del self._whole[next(iter(self._whole))]
        return Ack(boot=key[1], up_to=whole, also=tuple(rest))


def _add(ranges: list[list[int]], number: int) -> None:
    """Add a number to ranges in order that do not touch."""
    if not ranges or number > ranges[-1][1] + 1:
        ranges.append([number, number])
        return
    if number == ranges[-1][1] + 1:
        # Nearly always: the next one.
        ranges[-1][1] = number
        return
    at = bisect_left(ranges, number, key=lambda each: each[1] + 1)
    found = ranges[at]
    if number < found[0] - 1:
        ranges.insert(at, [number, number])
    elif number == found[0] - 1:
        found[0] = number
    elif number == found[1] + 1:
        found[1] = number
        if at + 1 < len(ranges) and ranges[at + 1][0] == number + 1:
            found[1] = ranges.pop(at + 1)[1]
