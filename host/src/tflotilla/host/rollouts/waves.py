"""Waves: `1,10%,50%,100%` as a person writes them, and which boards each of them takes.

    1, 25            so many more boards
    10%, 100%        so many of all boards to be reached, those of the waves before counted too
    site=lab, pi-*   what a selector picks (see `fleet.selectors`); commas in parentheses are the selector's own
    10%!             waits for a person's approval before it begins

Every board is in exactly one wave. What it does NOT do: look at boards; who is off is what the plan knows by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tflotilla.host.rollouts.plan import PlannedBoard, Wave


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSize:
    """One wave as it was written: exactly one of `count`, `share` and `selector` is set."""

    text: str
    count: int | None = None
    #: Of all boards to be reached, 0 < share ≤ 1.
    share: Fraction | None = None
    selector: str | None = None
    approval: bool = False


def parse(text: str) -> tuple[WaveSize, ...]:
    """Read `1,10%!,100%`. Raises UsageError."""
    raise NotImplementedError


def split(
    sizes: Sequence[WaveSize], boards: Sequence[PlannedBoard], *, select: Callable[[str], Iterable[str]]
) -> tuple[Wave, ...]:
    """Deal the boards out: those known to answer first, those never asked then, those that are off last.

    Boards that are incompatible, or serve the bundle already, are in no wave. Waves that would be empty are left out,
    but their approval is asked before the next one. `select` returns the names a selector picks.

    Raises:
        UsageError: boards are left over, or a selector can't be read.

    """
    raise NotImplementedError
