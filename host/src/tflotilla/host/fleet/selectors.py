"""Selectors: the expression that picks boards of a fleet.

    all                      every board
    pi-7                     one board; `pi-7,pi-8` both; `pi-*` by pattern
    room=kitchen             boards with that label; `room=kitchen,gen=4` both; `gen!=4` all without it
    pi-*,room=kitchen,!pi-7  names add, labels narrow, `!` leaves out

Terms are separated by commas or spaces. What it does NOT do: know what a board is doing; labels are what people wrote.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EVERY = frozenset({"all", "*"})
_NAME = re.compile(r"[a-z0-9*?\[][a-z0-9*?\[\]-]*")
_SHOWN_NAMES = 8


def select(expression: str, boards: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Return the names of the boards (name → labels) that the expression picks, in the fleet's order.

    Raises:
        UsageError: the expression can't be read, names a board that isn't there, or picks none.

    """
    names: list[str] = []
    excluded: list[str] = []
    requirements: list[tuple[str, str, bool]] = []
    terms = [term for term in re.split(r"[,\s]+", expression) if term]
    if not terms:
        message = "the selector is empty; 'all' picks every board"
        raise UsageError(message)
    for term in terms:
        key, different, value = term.partition("!=")
        if different:
            requirements.append((key, value, False))
        elif "=" in term:
            key, _equals, value = term.partition("=")
            requirements.append((key, value, True))
        elif term.startswith("!"):
            excluded += _matching(term[1:], term, boards)
        else:
            names += _matching(term, term, boards)
    only_labels = not any("=" not in term and not term.startswith("!") for term in terms)
    chosen = tuple(
        name
        for name, labels in boards.items()
        if (only_labels or name in names)
        and name not in excluded
        and all((labels.get(key) == value) is wanted for key, value, wanted in requirements)
    )
    if not chosen:
        message = f"selector {expression!r} picks no board; {_known(boards)}"
        raise UsageError(message)
    return chosen


def parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    """Read `key=value` pairs. Raises UsageError."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not is_label(key, value):
            message = f"label {pair!r}: write key=value, without spaces, commas, '!' or a second '='"
            raise UsageError(message)
        labels[key] = value
    return labels


def is_label(key: str, value: str) -> bool:
    """Whether a selector can name this label."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", key)) and not re.search(r"[,!=\s]", value)


def _matching(pattern: str, term: str, boards: Mapping[str, Mapping[str, str]]) -> Sequence[str]:
    if pattern in _EVERY:
        return tuple(boards)
    if not _NAME.fullmatch(pattern):
        message = f"selector term {term!r} is neither a board, a pattern like 'pi-*', nor a label like room=kitchen"
        raise UsageError(message)
    found = fnmatch.filter(boards, pattern)
    if not found:
        message = f"no board {term!r}; {_known(boards)}"
        raise UsageError(message)
    return found


def _known(boards: Mapping[str, Mapping[str, str]]) -> str:
    if not boards:
        return "the fleet has no boards yet (`tflotilla board add`)"
    shown = ", ".join(list(boards)[:_SHOWN_NAMES])
    more = f" and {len(boards) - _SHOWN_NAMES} more" if len(boards) > _SHOWN_NAMES else ""
    return f"the fleet has {shown}{more}"
