"""What a source of boards says, in the words of fleet.toml. Pure.

What it does NOT do: decide what becomes of it (`merging`), or reach a board.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tflotilla.host.fleet.selection.selectors import check_name
from tflotilla.shared.contract.board import check_board_id

_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A board as a source has it."""

    name: str
    #: What it is called there.
    origin: str
    #: Its table in fleet.toml, as far as the source says: host, port, user, identity, jump, python, labels.
    table: Mapping[str, Any]
    groups: tuple[str, ...] = ()
    #: What a person should know: a changed name, an option that isn't used.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What can't be a board, and why."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything a source says."""

    source: str
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...] = field(default=())
    notes: tuple[str, ...] = ()


def board_name(origin: str) -> str:
    """Make a BoardId of any name: lower case, '-' for whatever a BoardId can't hold. Raises ValueError."""
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9]", "-", origin.lower())).strip("-")[:_LONGEST_NAME].strip("-")
    if not name:
        message = f"no board name can be made of {origin!r}"
        raise ValueError(message)
    check_name(name)
    return name if _is_name(origin) is False else origin


def _is_name(text: str) -> bool:
    try:
        check_board_id(text)
    except ValueError:
        return False
    return True


def distinct(candidates: list[Candidate], left_out: list[LeftOut]) -> tuple[Candidate, ...]:
    """Keep the first of those whose names became the same; the others join `left_out`."""
    kept: dict[str, Candidate] = {}
    # A board that has its name already goes before one that would get it.
    for candidate in sorted(candidates, key=lambda each: each.origin != each.name):
        first = kept.setdefault(candidate.name, candidate)
        if first is not candidate:
            reason = f"its name would be {candidate.name}, which is that of {first.origin!r}"
            left_out.append(LeftOut(origin=candidate.origin, reason=reason))
    chosen = set(map(id, kept.values()))
    return tuple(candidate for candidate in candidates if id(candidate) in chosen)
