"""Waves: `1,10%,50%,100%` as a person writes them, and which boards each of them takes.

    1, 25            so many more boards
    10%, 100%        so many of all boards to be reached, those of the waves before counted too
    site=lab, pi-*   what a selector picks (see `selection.selectors`); commas in parentheses are the selector's own
    10%!             waits for a person's approval before it begins

Every board is in exactly one wave. What it does NOT do: look at boards; who is off is what the plan knows by then.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.plan import Wave
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tflotilla.host.rollouts.plan import PlannedBoard

_COUNT = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")
#: The order in which boards are reached; others are in no wave.
_RANKS = {"ready": 0, "unknown": 1, "offline": 2}


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
    sizes: list[WaveSize] = []
    share = Fraction(0)
    for term in _terms(text):
        if share == 1:
            message = f"waves {text!r}: {term!r} comes after 100%, when no board is left"
            raise UsageError(message)
        size = _size(term, text)
        if size.share is not None:
            if size.share <= share:
                before = f"{float(100 * share):g}%"
                message = (
                    f"waves {text!r}: {term!r} is not more than the {before} before it; shares count from the first"
                )
                raise UsageError(message)
            share = size.share
        sizes.append(size)
    return tuple(sizes)


def split(
    sizes: Sequence[WaveSize], boards: Sequence[PlannedBoard], *, select: Callable[[str], Iterable[str]]
) -> tuple[Wave, ...]:
    """Deal the boards out: those known to answer first, those never asked then, those that are off last.

    Boards that are incompatible, or serve the bundle already, are in no wave. Waves that would be empty are left out,
    but their approval is asked before the next one. `select` returns the names a selector picks.

    Raises:
        UsageError: boards are left over, or a selector can't be read.

    """
    reached = [board for board in boards if board.disposition in _RANKS]
    # Sorting is stable: within each kind the fleet's order stays.
    left = dict.fromkeys(board.board for board in sorted(reached, key=lambda board: _RANKS[board.disposition]))
    total = len(left)
    waves: list[Wave] = []
    approval = False
    for size in sizes:
        approval = approval or size.approval
        taken = _taken(size, left, total, select)
        if taken:
            waves.append(Wave(size=size.text, boards=taken, approval=approval))
            approval = False
        for board in taken:
            del left[board]
    if left:
        missing = f"{len(left)} of {total} boards, {next(iter(left))} for one, are"
        message = f"waves {','.join(size.text for size in sizes)!r}: {missing} in no wave; end with 100%"
        raise UsageError(message)
    return tuple(waves)


def _taken(
    size: WaveSize, left: dict[str, None], total: int, select: Callable[[str], Iterable[str]]
) -> tuple[str, ...]:
    if size.selector is not None:
        picked = set(select(size.selector))
        return tuple(board for board in left if board in picked)
    wanted = size.count or 0
    if size.share is not None:
        # Rounded up, exactly: a tenth of five boards is one.
        wanted = math.ceil(size.share * total) - (total - len(left))
    return tuple(left)[: max(wanted, 0)]


def _terms(text: str) -> Iterator[str]:
    """Cut at commas outside parentheses."""
    depth, begin = 0, 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()


def _size(term: str, text: str) -> WaveSize:
    approval = term.endswith("!")
    plain = term.removesuffix("!").strip()
    if not plain:
        message = f"waves {text!r}: a wave is empty; write counts, shares or selectors, as 1,10%,100%"
        raise UsageError(message)
    if _COUNT.fullmatch(plain):
        if int(plain) == 0:
            message = f"waves {text!r}: a wave of 0 boards proves nothing"
            raise UsageError(message)
        return WaveSize(text=plain, count=int(plain), approval=approval)
    if percent := _PERCENT.fullmatch(plain):
        share = Fraction(percent[1]) / 100
        if not 0 < share <= 1:
            message = f"waves {text!r}: {plain!r} must be above 0% and at most 100%"
            raise UsageError(message)
        return WaveSize(text=plain, share=share, approval=approval)
    if plain.endswith("%") or plain.isdigit():
        message = f"waves {text!r}: {plain!r} is no share; write a number and %, as 12.5%"
        raise UsageError(message)
    return WaveSize(text=plain, selector=plain, approval=approval)
