"""What importing would change in a fleet: added, changed, left alone, left out. Pure.

Rules it keeps: a board of the fleet keeps what the source doesn't say; labels and groups are added to, nothing is taken
away; a machine that the fleet knows under another name isn't added a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing.candidates import LeftOut
from tflotilla.host.fleet.inventory.entries import BoardEntry

if TYPE_CHECKING:
    from tflotilla.host.fleet.importing.candidates import Reading

_DEFAULTS = {"install": "auto", "python": "python3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value of one board that would be another."""

    board: str
    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """Everything an import would do."""

    source: str
    added: Mapping[str, BoardEntry]
    changed: tuple[Change, ...]
    #: Boards of the fleet of which the source says what the fleet says.
    same: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    #: Group → boards that would join it.
    joined: Mapping[str, tuple[str, ...]]
    #: Board → what a person should know; `""` is the source itself.
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.added or self.changed or self.joined)

    def values(self, groups: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], Any]:
        """Return what is to be put into fleet.toml besides the new boards, path → value.

        `groups` are the members that the file itself names.
        """
        put: dict[tuple[str, ...], Any] = {}
        for change in self.changed:
            put["boards", change.board, change.key] = change.after
        for group, boards in self.joined.items():
            put["groups", group, "boards"] = [*groups.get(group, ()), *boards]
        return put


def plan(
    reading: Reading,
    boards: Mapping[str, BoardEntry],
    groups: Mapping[str, tuple[str, ...]],
    *,
    labels: Mapping[str, str],
    wanted: frozenset[str] | None = None,
) -> ImportPlan:
    """Hold what a source says against a fleet's boards and groups.

    Args:
        reading: of the source.
        boards: of the fleet.
        groups: of the fleet.
        labels: for every board of the source.
        wanted: the names that are to be imported; None is all.

    """
    added: dict[str, BoardEntry] = {}
    changed: list[Change] = []
    same: list[str] = []
    left_out = list(reading.left_out)
    joined: dict[str, list[str]] = {}
    notes: dict[str, tuple[str, ...]] = {"": reading.notes} if reading.notes else {}
    addresses = {(entry.host, entry.port, entry.jump): name for name, entry in boards.items()}
    for candidate in reading.candidates:
        if wanted is not None and candidate.name not in wanted:
            left_out.append(LeftOut(origin=candidate.origin, reason="not selected"))
            continue
        table = dict(candidate.table)
        if labels:
            table["labels"] = {**table.get("labels", {}), **labels}
        entry = BoardEntry(**table)
        there = boards.get(candidate.name)
        other = addresses.get((entry.host, entry.port, entry.jump))
        if there is None and other is not None:
            reason = f"the fleet has a board at this address: {other}"
            left_out.append(LeftOut(origin=candidate.origin, reason=reason))
            continue
        joins = [group for group in candidate.groups if candidate.name not in groups.get(group, ())]
        for group in joins:
            joined.setdefault(group, []).append(candidate.name)
        if candidate.notes:
            notes[candidate.name] = candidate.notes
        if there is None:
            added[candidate.name] = entry
            continue
        differs = _changes(candidate.name, there, table)
        changed += differs
        if not differs and not joins:
            same.append(candidate.name)
    return ImportPlan(
        source=reading.source,
        added=added,
        changed=tuple(changed),
        same=tuple(same),
        left_out=tuple(left_out),
        joined={group: tuple(names) for group, names in joined.items()},
        notes=notes,
    )


def _changes(name: str, there: BoardEntry, table: Mapping[str, Any]) -> list[Change]:
    found = []
    for key, value in table.items():
        before = getattr(there, key)
        after = {**before, **value} if key == "labels" else value
        if before != after:
            found.append(Change(board=name, key=key, before=before, after=after))
    return found
