"""Groups of boards, and what they say for each of their boards. Pure.

    [groups.kitchen]
    boards = ["pi-1", "pi-2"]           # by name or pattern; or
    selector = "room=kitchen"           # by labels, names and groups above this one
    labels = { floor = "ground" }       # and whatever else a board's table may hold, but host
    user = "pi"

What a board's own table says goes before its groups, and a later group before an earlier one; labels and the tables of
`agent` are merged key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.selection import selectors
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.entries import GroupEntry

#: The tables of a board in which keys are merged one by one.
_MERGED = ("labels", "agent")
_OF_THE_GROUP = ("boards", "selector")


def members(
    groups: Mapping[str, GroupEntry],
    boards: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, tuple[str, ...]],
    where: str,
) -> dict[str, tuple[str, ...]]:
    """Return which boards (name → table as written) each group has, in the fleet's order.

    `others` are groups of another file: selectors may name them, and one of the same name is added to.

    Raises:
        ConfigError: a name, pattern or selector of a group picks nothing that can be; `where` is the file.

    """
    found: dict[str, tuple[str, ...]] = {}
    labels: dict[str, Mapping[str, str]] = {name: _labels(table) for name, table in boards.items()}
    for name, group in groups.items():
        if not selectors.is_group(name):
            message = f"{where}: groups.{name}: a group's name is letters, digits, '.', '_' and '-'"
            raise ConfigError(message)
        chosen: set[str] = set(others.get(name, ()))
        # Names are looked up, not picked: a group may have all of 10,000 boards.
        chosen |= set(group.boards) & labels.keys()
        for pattern in set(group.boards) - labels.keys():
            chosen |= set(_pick(pattern, labels, {}, f"{where}: groups.{name}.boards"))
        if group.selector is not None:
            chosen |= set(_pick(group.selector, labels, {**others, **found}, f"{where}: groups.{name}.selector"))
        found[name] = tuple(board for board in boards if board in chosen)
        if group.labels:
            for board in found[name]:
                labels[board] = {**labels[board], **group.labels, **_labels(boards[board])}
    return found


def applied(
    groups: Mapping[str, Mapping[str, Any]],
    belongs: Mapping[str, tuple[str, ...]],
    boards: Mapping[str, Mapping[str, Any]],
) -> dict[str, Mapping[str, Any]]:
    """Return the boards' tables with what their groups say put under what they say themselves."""
    below: dict[str, dict[str, Any]] = {}
    for name, table in groups.items():
        said = {key: value for key, value in table.items() if key not in _OF_THE_GROUP}
        if said:
            for board in belongs[name]:
                below[board] = merged(below.get(board, {}), said)
    return {name: merged(below[name], table) if name in below else table for name, table in boards.items()}


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Put one table of a board over another one."""
    result = {**lower, **upper}
    for key in _MERGED:
        one, other = lower.get(key), upper.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            result[key] = _deep(one, other) if key == "agent" else {**one, **other}
    return result


def _deep(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    result = {**lower, **upper}
    for table, values in upper.items():
        before = lower.get(table)
        if isinstance(before, Mapping) and isinstance(values, Mapping):
            result[table] = {**before, **values}
    return result


def _labels(table: Mapping[str, Any]) -> Mapping[str, str]:
    """Return a table's labels as texts; those that are none are refused later, where the table is read."""
    labels = table.get("labels", {}) if isinstance(table, Mapping) else {}
    if not isinstance(labels, Mapping):
        return {}
    return {key: str(value) for key, value in labels.items()}


def _pick(
    expression: str, labels: Mapping[str, Mapping[str, str]], groups: Mapping[str, tuple[str, ...]], where: str
) -> tuple[str, ...]:
    try:
        return selectors.select(expression, labels, groups=groups, may_be_empty=True)
    except UsageError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
