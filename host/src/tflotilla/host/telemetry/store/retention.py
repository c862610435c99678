"""Forgetting: what is older than it is worth, and the oldest messages first when the file gets too large.

Rules it keeps: what is not summed up yet is not forgotten; a step is a few thousand rows, so that appends never wait
long; of an SQLite file the pages that become free go back to the disk. Which numbers were stored is never forgotten.
What it does NOT do: limit the size of a PostgreSQL database, whose files only its own vacuum makes smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sql

from tflotilla.host.telemetry.store import folding, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.telemetry.store.database import DatabaseStore

DAY_S = 86400.0
_STEP_ROWS = 5000
#: Down to that share of what is allowed, so that it isn't done for every message.
_ROOM = 0.95
_STEP_PAGES = 1000
#: Free pages that stay in the file: the next messages need them.
_SPARE_PAGES = 500
#: A message from further ahead came when the clock here was wrong.
_AHEAD_S = DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is kept, in seconds, and how large the file may be; None is for ever, and any size."""

    raw_s: float | None = None
    reports_s: float | None = None
    minutes_s: float | None = None
    hours_s: float | None = None
    days_s: float | None = None
    most_bytes: int | None = None


def forget(store: DatabaseStore, *, now: float, stop: Callable[[], bool]) -> tuple[int, bool]:
    """Take one step with each table; return how many rows are gone, and whether more should go."""
    kept = store.retention
    gone, more = 0, False
    for table, age_s in (
        (schema.METRICS, kept.raw_s),
        (schema.PREDICTIONS, kept.raw_s),
        (schema.REPORTS, kept.reports_s),
        (schema.MINUTES, kept.minutes_s),
        (schema.HOURS, kept.hours_s),
        (schema.DAYS, kept.days_s),
    ):
        if stop():
            return gone, True
        if age_s is None:
            continue
        deleted = _forget_raw(store, table, now, age_s) if "at" in table.c else _forget_sums(store, table, now - age_s)
        gone += deleted
        more = more or deleted == _STEP_ROWS
    if store.file is not None and kept.most_bytes is not None:
        deleted, too_large = _shrink(store, kept.most_bytes, stop)
        gone += deleted
        more = more or too_large
    return gone, more


def _name(table: sql.Table) -> str:
    return table.name.removeprefix("telemetry_")


def _last_summed(connection: sql.Connection, table: sql.Table) -> int | None:
    """Return the last row that may go; None where nothing is made of them."""
    sources = {level.source for level in folding.LEVELS}
    return folding.watermark(connection, _name(table)) if _name(table) in sources else None


def _forget_raw(store: DatabaseStore, table: sql.Table, now: float, age_s: float) -> int:
    """Delete the oldest messages as far as they are too old, in order of arrival."""
    with store.reading() as connection:
        if connection is None:
            return 0
        limit = _last_summed(connection, table)
        first = sql.select(table.c.id, table.c.at).order_by(table.c.id).limit(_STEP_ROWS)
        rows = connection.execute(first if limit is None else first.where(table.c.id <= limit)).all()
    old = 0
    while old < len(rows) and not now - age_s <= rows[old][1] <= now + _AHEAD_S:
        old += 1
    return _delete_up_to(store, table, rows[old - 1][0]) if old else 0


def _forget_sums(store: DatabaseStore, table: sql.Table, before: float) -> int:
    with store.reading() as connection:
        if connection is None:
            return 0
        limit = _last_summed(connection, table)
        old = sql.select(table.c.id).where(table.c.start < before)
        old = old if limit is None else old.where(table.c.id <= limit)
        numbers: Sequence[int] = connection.execute(old.order_by(table.c.start).limit(_STEP_ROWS)).scalars().all()
    if not numbers:
        return 0
    with store.taking_turns() as connection:
        connection.execute(sql.delete(table).where(table.c.id.in_(numbers)))
        _note(connection, table, before)
    return len(numbers)


def _delete_up_to(store: DatabaseStore, table: sql.Table, row: int) -> int:
    with store.taking_turns() as connection:
        return connection.execute(sql.delete(table).where(table.c.id <= row)).rowcount


def _note(connection: sql.Connection, table: sql.Table, before: float) -> None:
    """Remember from where on a level is complete."""
    marks = schema.WATERMARKS
    wanted = sql.update(marks).where(marks.c.source == _name(table), marks.c.forgotten < int(before))
    connection.execute(wanted.values(forgotten=int(before)))


def size(connection: sql.Connection) -> tuple[int, int]:
    """Return how many bytes an SQLite file has, and how many of them are free."""
    page, count, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    return page * count, page * free


def _shrink(store: DatabaseStore, most_bytes: int, stop: Callable[[], bool]) -> tuple[int, bool]:
    """Make room in a file that is too large: messages first, then minutes, then hours; days and reports stay."""
    with store.reading() as connection:
        if connection is None:
            return 0, False
        total, free = size(connection)
    used = total - free
    # Begun when it is too large, and then until there is some room.
    gone = _forget_oldest(store) if used > most_bytes * (_ROOM if total > most_bytes else 1) else 0
    given_back = _give_back(store) if total > most_bytes and free > 0 and not stop() else 0
    return gone, given_back > 0 or (gone > 0 and used > most_bytes)


def _forget_oldest(store: DatabaseStore) -> int:
    with store.reading() as connection:
        if connection is None:
            return 0
        firsts = []
        for table in schema.RAW.values():
            limit = _last_summed(connection, table)
            first = sql.select(table.c.at, table.c.id).order_by(table.c.id).limit(1)
            row = connection.execute(first if limit is None else first.where(table.c.id <= limit)).one_or_none()
            if row is not None:
                firsts.append((row.at, row.id, table, limit))
    if firsts:
        _, row, table, limit = min(firsts, key=lambda each: each[0])
        last = row + _STEP_ROWS - 1
        return _delete_up_to(store, table, last if limit is None else min(last, limit))
    for table in (schema.MINUTES, schema.HOURS):
        with store.reading() as connection:
            oldest = None
            if connection is not None:
                limit = _last_summed(connection, table)
                wanted = sql.select(table.c.start).where(table.c.id <= (limit or 0)).order_by(table.c.start)
                oldest = connection.execute(wanted.limit(1).offset(_STEP_ROWS)).scalar()
        if oldest is not None:
            return _forget_sums(store, table, float(oldest) + 1)
    return 0


def _give_back(store: DatabaseStore) -> int:
    """Make the file smaller by some of its free pages; return how many."""
    with store.taking_turns() as connection:
        _, free = size(connection)
        page = int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        pages = min(free // page - _SPARE_PAGES, _STEP_PAGES)
        for _ in range(pages):
            # Python's driver takes one step of each statement, and a step is a page.
            connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return max(0, pages)
