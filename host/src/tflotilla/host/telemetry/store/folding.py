"""Summing up: windows into minutes, minutes into hours, hours into days; each exactly once, whatever is killed when.

A step reads rows beyond the watermark in order of their numbers, adds them up in memory while nobody waits, and writes
the sums and the new watermark in one transaction: a step that is cut off never happened. Of one span there may be
several sums, which readers add up, so what comes late is summed up like everything else, and nothing is ever rewritten.

Rules it keeps: a span is summed up when it is over (by the clock here), so mostly once; when more rows wait than memory
is given, they are, in several sums. What it does NOT do: decide what is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from tflotilla.host.telemetry.store import schema, statements
from tflotilla.host.telemetry.store.port import UnavailableError
from tflotilla.host.telemetry.store.sums import Sums, window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tflotilla.host.telemetry.store.database import DatabaseStore

#: Rows of one step: each is a kilobyte of memory, and ten microseconds of a processor.
_MOST_ROWS = 60_000
#: A clock that is set back must not make everything wait that came before.
_FUTURE_SPANS = 2
_FETCHED_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One kind of sums, and what they are made of."""

    source: str
    target: sql.Table
    span_s: int


LEVELS = (
    Level(source="metrics", target=schema.MINUTES, span_s=60),
    Level(source="minutes", target=schema.HOURS, span_s=3600),
    Level(source="hours", target=schema.DAYS, span_s=86400),
)
#: (row, when it counts, board, bundle, payload or sums)
Row = tuple[int, float, int, int, bytes]
#: (span's start, board, bundle)
Key = tuple[int, int, int]


def rows_after(source: str, row: int, *, up_to: int | None = None) -> sql.Select[Any]:
    """Return what reads `Row`s of a level's source beyond a row, and when they came, in order."""
    if source == "metrics":
        raw, boots = schema.METRICS.c, schema.BOOTS.c
        wanted = sql.select(raw.id, raw.time, boots.board, raw.bundle, raw.payload, raw.at)
        wanted = wanted.join_from(schema.METRICS, schema.BOOTS, raw.boot == boots.id)
        number = raw.id
    else:
        parts = schema.TABLES.tables[f"telemetry_{source}"].c
        wanted = sql.select(parts.id, parts.start, parts.board, parts.bundle, parts.sums, parts.start)
        number = parts.id
    wanted = wanted.where(number > row).order_by(number)
    return wanted if up_to is None else wanted.where(number <= up_to)


def added(rows: Iterable[Row], source: str, into: Sums) -> Sums:
    """Add rows of a source to sums; what is unreadable is left out."""
    if source == "metrics":
        if windows := [found for row in rows if (found := window(row[4])) is not None]:
            into.add(*windows)
    else:
        for row in rows:
            into.merge_packed(row[4])
    return into


def summed(
    rows: Sequence[Row], source: str, span_s: int, *, stop: Callable[[], bool] = lambda: False
) -> list[tuple[int, int, int, bytes]] | None:
    """Add up rows by span, board and bundle: (start, board, bundle, sums), in that order; None when stopped."""
    # Sorted are the keys, not the rows: sorting is one step of the interpreter, for which everybody else stands still.
    groups: dict[Key, list[Row]] = {}
    for number, row in enumerate(rows):
        groups.setdefault((int(row[1] // span_s) * span_s, row[2], row[3]), []).append(row)
        if number % _FETCHED_ROWS == 0 and stop():
            return None
    parts = []
    for key in sorted(groups):
        # Also where whoever hears messages in another thread is let go first.
        if stop():
            return None
        parts.append((*key, added(groups.pop(key), source, Sums()).pack()))
    return parts


def watermark(connection: sql.Connection, source: str) -> int:
    """Return the last row of a source that is summed up."""
    wanted = sql.select(schema.WATERMARKS.c.row).where(schema.WATERMARKS.c.source == source)
    return int(connection.execute(wanted).scalar_one())


def fold(store: DatabaseStore, *, now: float, stop: Callable[[], bool]) -> tuple[int, bool]:
    """Take one step on each level; return how many rows were summed up, and whether more wait.

    Raises:
        UnavailableError: the store can't be used just now.

    """
    folded, more = 0, False
    for level in LEVELS:
        if stop():
            return folded, True
        with store.alone(statements.FOLD_LOCK) as is_alone:
            if not is_alone:
                return folded, False
            rows = _step(store, level, now, stop)
        folded += rows
        more = more or rows == _MOST_ROWS
    return folded, more


def _step(store: DatabaseStore, level: Level, now: float, stop: Callable[[], bool]) -> int:
    try:
        with store.taking_turns() as connection:
            last = statements.last_row(connection, schema.TABLES.tables[f"telemetry_{level.source}"])
    except UnavailableError:
        # Somebody appends, or is stuck in it; there will be a next time.
        return 0
    with store.reading() as connection:
        if connection is None:
            return 0
        mark = watermark(connection, level.source)
        if last <= mark:
            return 0
        begins = now // level.span_s * level.span_s
        ends = begins + _FUTURE_SPANS * level.span_s
        is_late = _is_late(connection, level, mark)
        wanted = rows_after(level.source, mark, up_to=last).limit(_MOST_ROWS)
        rows: list[Row] = []
        # Not all of them at once: mostly they are of the span that is going on.
        for row in connection.execution_options(yield_per=_FETCHED_ROWS).execute(wanted):
            if begins <= row[5] < ends and not is_late:
                break
            rows.append(row[:5])
            if len(rows) % _FETCHED_ROWS == 0 and stop():
                rows.clear()
                break
    parts = summed(rows, level.source, level.span_s, stop=stop)
    if not parts:
        # Nothing is there, or it was stopped: then this step never was.
        return 0
    with store.taking_turns() as connection:
        marks = schema.WATERMARKS
        moved = sql.update(marks).where(marks.c.source == level.source, marks.c.row == mark)
        if connection.execute(moved.values(row=rows[-1][0])).rowcount != 1:
            # Another process summed these up meanwhile.
            connection.rollback()
            return 0
        statements.insert(connection, level.target, statements.PART_COLUMNS, parts)
    return len(rows)


def _is_late(connection: sql.Connection, level: Level, mark: int) -> bool:
    """Whether so many rows wait that they can't wait for the end of their span."""
    table = schema.TABLES.tables[f"telemetry_{level.source}"].c
    waiting = sql.select(table.id).where(table.id > mark).order_by(table.id).offset(_MOST_ROWS - 1).limit(1)
    return connection.execute(waiting).scalar() is not None
