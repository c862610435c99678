"""What a person looks at in a terminal: in which order, from which board on, and what keys change. Pure.

    h what hurts   n name   p p99   m p50   i inferences/s   t temperature   l last seen   s the next of them
    r the other way round   j k ↓ ↑ one board   space b PgDn PgUp a screen   g G Home End the ends   q quit

What it does NOT do: read keys (`cli.keyboard` does), or draw (`terminal` does).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.host.dashboards.web.tiles import Tile

Sort = Literal["hurt", "name", "p99", "p50", "rate", "temperature", "seen"]
SORTS: tuple[Sort, ...] = get_args(Sort)
_SORT_KEYS: dict[str, Sort] = {
    "h": "hurt",
    "n": "name",
    "p": "p99",
    "m": "p50",
    "i": "rate",
    "t": "temperature",
    "l": "seen",
}
_FIELDS: dict[Sort, str] = {"p99": "p99_ms", "p50": "p50_ms", "rate": "rate", "temperature": "temperature_c"}
_END = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """Where somebody looks. `first` is the number of the first board that is shown."""

    sort: Sort = "hurt"
    reverse: bool = False
    first: int = 0
    quits: bool = False

    def pressed(self, key: str, *, boards: int, rows: int) -> Looking:
        """Return where they look after a key, given how many boards there are and fit; other keys do nothing."""
        if key in _SORT_KEYS:
            return dataclasses.replace(self, sort=_SORT_KEYS[key], first=0)
        if key == "s":
            return dataclasses.replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)], first=0)
        if key == "r":
            return dataclasses.replace(self, reverse=not self.reverse, first=0)
        if key == "q":
            return dataclasses.replace(self, quits=True)
        page = max(1, rows - 1)
        by = {"j": 1, "down": 1, "k": -1, "up": -1, " ": page, "pgdn": page, "b": -page, "pgup": -page}
        by |= {"g": -_END, "home": -_END, "G": _END, "end": _END}
        return dataclasses.replace(self, first=self.first + by.get(key, 0)).within(boards=boards, rows=rows)

    def within(self, *, boards: int, rows: int) -> Looking:
        """Return this with no empty line at the end where there are boards to fill it."""
        return dataclasses.replace(self, first=max(0, min(self.first, boards - rows)))


def ranked(tiles: Iterable[Tile], looking: Looking) -> list[Tile]:
    """Return the boards in order: the worst first, those of which the figure isn't known last, equals by name.

    The worst: what hurts most, the slowest, the hottest, the one heard of longest ago, the fewest inferences.
    """
    named = sorted(tiles, key=lambda tile: str(tile["board"]), reverse=looking.reverse and looking.sort == "name")
    if looking.sort == "name":
        return named
    known = [tile for tile in named if _figure(tile, looking.sort) is not None]
    unknown = [tile for tile in named if _figure(tile, looking.sort) is None]
    ascends = looking.sort in ("rate", "seen")
    known.sort(key=lambda tile: _figure(tile, looking.sort), reverse=ascends == looking.reverse)
    return known + unknown


def _figure(tile: Tile, sort: Sort) -> Any:  # noqa: ANN401 - a number, or None
    return tile[_FIELDS.get(sort, sort)]
