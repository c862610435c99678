"""Which numbers of one boot were stored, for ever, in a line of text.

    numbers = Numbers.read("1-500 503-612", received=610)
    numbers.add(501)     # True: new
    numbers.add(7)       # False: a duplicate

Laws: `add`ing the same numbers in any order gives the same text; `Numbers.read(n.text(), …).text() == n.text()`.
Rules it keeps: memory is bounded: of more than 4,096 ranges the two lowest are joined. What lay between them counts as
missing for ever, and is taken for a duplicate should it come after all.
"""

from __future__ import annotations

from bisect import bisect_left

_MOST_RANGES = 4096


class Numbers:
    """The numbers of a boot that are stored."""

    __slots__ = ("_firsts", "_lasts", "duplicates", "received")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        #: How many different ones there are.
        self.received = 0
        #: How many came again.
        self.duplicates = 0

    @classmethod
    def read(cls, text: str, *, received: int, duplicates: int = 0) -> Numbers:
        """Return what `text()` wrote. Raises ValueError for anything else."""
        numbers = cls()
        for each in text.split():
            first, _, last = each.partition("-")
            numbers._firsts.append(int(first))
            numbers._lasts.append(int(last or first))
        numbers.received, numbers.duplicates = received, duplicates
        return numbers

    def text(self) -> str:
        """Return the ranges in order: `1-500 503 612-700`."""
        return " ".join(
            f"{first}-{last}" if last > first else str(first)
            for first, last in zip(self._firsts, self._lasts, strict=True)
        )

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """What was stored, as (first, last) in order."""
        return tuple(zip(self._firsts, self._lasts, strict=True))

    @property
    def first(self) -> int | None:
        """The lowest number."""
        return self._firsts[0] if self._firsts else None

    @property
    def last(self) -> int | None:
        """The highest number."""
        return self._lasts[-1] if self._lasts else None

    @property
    def missing(self) -> int:
        """How many numbers between the lowest and the highest were never stored."""
        return self._lasts[-1] - self._firsts[0] + 1 - self.received if self._firsts else 0

    def add(self, number: int) -> bool:
        """Take one more number; return whether it is new."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and number == lasts[-1] + 1:
            # Nearly always: the next one.
            lasts[-1] = number
            self.received += 1
            return True
        at = bisect_left(lasts, number)
        if at < len(lasts) and firsts[at] <= number:
            self.duplicates += 1
            return False
        self.received += 1
        extends = at > 0 and lasts[at - 1] == number - 1
        precedes = at < len(firsts) and firsts[at] == number + 1
        if extends and precedes:
            lasts[at - 1] = lasts.pop(at)
            del firsts[at]
        elif extends:
            lasts[at - 1] = number
        elif precedes:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)
            if len(firsts) > _MOST_RANGES:
                del firsts[1], lasts[0]
        return True
