"""The statements that thousands of rows a second go through, in each database's own words.

SQLAlchemy would prepare each row by itself; drivers take them as they are. What it does NOT do: transactions.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql

from tflotilla.host.telemetry.store import schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

#: Rows of `schema.RAW` without their id: boot, seq, channel, at, time, bundle, payload.
RAW_COLUMNS = ("boot", "seq", "channel", "at", "time", "bundle", "payload")
PART_COLUMNS = ("start", "board", "bundle", "sums")
_POSTGRESQL = "postgresql"
#: SQLite takes 32,766 values in a statement.
_ROWS_AT_ONCE = 1000
#: Serialize: who makes the tables; appends against who looks for the last row; who sums up.
SCHEMA_LOCK, APPEND_LOCK, FOLD_LOCK = 0x7F111, 0x7F112, 0x7F113


def insert(
    connection: sql.Connection, table: sql.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Add rows."""
    if not rows:
        return
    if connection.dialect.name == _POSTGRESQL:
        text = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
        # psycopg's own; SQLAlchemy has no word for it.
        cursor: Any = connection.connection.cursor()
        with cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)
        return
    for some in _batches(rows):
        text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {_marks(some)}"  # noqa: S608 - of the schema
        connection.exec_driver_sql(text, tuple(chain.from_iterable(some)))


def numbered(
    connection: sql.Connection, table: sql.Table, column: sql.Column[Any], names: Collection[str]
) -> dict[str, int]:
    """Return the id of each name in a table of names; those that have none get one."""
    if not names:
        return {}
    # In one order everywhere: two writers that wait for each other's new rows would never end.
    ordered = sorted(names)
    if connection.dialect.name == _POSTGRESQL:
        text = (
            f"INSERT INTO {table.name} ({column.name}) SELECT unnest(%s::text[]) ON CONFLICT ({column.name}) DO NOTHING"
        )
        wanted = f"SELECT {column.name}, id FROM {table.name} WHERE {column.name} = ANY(%s)"  # noqa: S608 - as above
        found: dict[str, int] = dict(connection.exec_driver_sql(wanted, (ordered,)).all())
        if missing := [name for name in ordered if name not in found]:
            connection.exec_driver_sql(text, (missing,))
            found |= dict(connection.exec_driver_sql(wanted, (missing,)).all())
        return found
    new = f"INSERT OR IGNORE INTO {table.name} ({column.name}) SELECT value FROM json_each(?)"  # noqa: S608 - as above
    connection.exec_driver_sql(new, (json.dumps(ordered),))
    wanted = (
        f"SELECT {column.name}, id FROM {table.name} "  # noqa: S608 - as above
        f"WHERE {column.name} IN (SELECT value FROM json_each(?))"
    )
    return dict(connection.exec_driver_sql(wanted, (json.dumps(ordered),)).all())


def boots(
    connection: sql.Connection, keys: Collection[tuple[int, str]], *, at: float
) -> dict[tuple[int, str], tuple[int, str, int, int]]:
    """Return (id, ranges, received, duplicates) of each (board, boot), locked against other writers; new ones too."""
    ordered = sorted(keys)
    if not ordered:
        return {}
    table = schema.BOOTS.name
    columns = "board, boot, ranges, received, duplicates, first_at, last_at"
    if connection.dialect.name == _POSTGRESQL:
        both = ([board for board, _ in ordered], [boot for _, boot in ordered])
        given = "unnest(%s::bigint[], %s::text[]) AS given (board, boot)"
        new = (
            f"INSERT INTO {table} ({columns}) SELECT given.board, given.boot, '', 0, 0, %s, %s FROM {given} "  # noqa: S608
            f"WHERE NOT EXISTS (SELECT FROM {table} b WHERE b.board = given.board AND b.boot = given.boot) "
            "ORDER BY given.board, given.boot ON CONFLICT (board, boot) DO NOTHING"
        )
        connection.exec_driver_sql(new, (at, at, *both))
        wanted = (
            f"SELECT b.board, b.boot, b.id, b.ranges, b.received, b.duplicates FROM {table} b JOIN {given} "  # noqa: S608
            "ON b.board = given.board AND b.boot = given.boot ORDER BY b.id FOR UPDATE OF b"
        )
        rows = connection.exec_driver_sql(wanted, both)
        return {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}
    new = (
        f"INSERT OR IGNORE INTO {table} ({columns}) "  # noqa: S608 - of the schema
        "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), '', 0, 0, ?, ? FROM json_each(?)"
    )
    connection.exec_driver_sql(new, (at, at, json.dumps(ordered)))
    wanted = (
        f"SELECT b.board, b.boot, b.id, b.ranges, b.received, b.duplicates FROM json_each(?) given JOIN {table} b "  # noqa: S608
        "ON b.board = json_extract(given.value, '$[0]') AND b.boot = json_extract(given.value, '$[1]')"
    )
    rows = connection.exec_driver_sql(wanted, (json.dumps(ordered),))
    return {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}


def update_boots(connection: sql.Connection, rows: Sequence[tuple[int, str, int, int, float]]) -> None:
    """Write (id, ranges, received, duplicates, last_at) of boots."""
    if not rows:
        return
    table = schema.BOOTS.name
    if connection.dialect.name == _POSTGRESQL:
        text = (
            f"UPDATE {table} b SET ranges = given.ranges, received = given.received, duplicates = given.duplicates, "  # noqa: S608
            "last_at = greatest(b.last_at, given.last_at) FROM unnest(%s::bigint[], %s::text[], %s::bigint[], "
            "%s::bigint[], %s::float8[]) AS given (id, ranges, received, duplicates, last_at) WHERE b.id = given.id"
        )
        connection.exec_driver_sql(text, tuple(list(column) for column in zip(*rows, strict=True)))
        return
    for some in _batches(rows):
        text = (
            f"WITH given (id, ranges, received, duplicates, last_at) AS (VALUES {_marks(some)}) "  # noqa: S608 - as above
            f"UPDATE {table} SET ranges = given.ranges, received = given.received, duplicates = given.duplicates, "
            f"last_at = max({table}.last_at, given.last_at) FROM given WHERE {table}.id = given.id"
        )
        connection.exec_driver_sql(text, tuple(chain.from_iterable(some)))


def _batches(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Cut rows up for SQLite: each statement gives Python's lock away, and may wait for it as long as it works."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _marks(rows: Sequence[tuple[Any, ...]]) -> str:
    one = f"({', '.join('?' * len(rows[0]))})"
    return ", ".join([one] * len(rows))


def upsert_latest(connection: sql.Connection, rows: Iterable[tuple[int, str, float, bytes]]) -> None:
    """Write (board, channel, at, payload), where it is no older than what is there."""
    mark = "%s" if connection.dialect.name == _POSTGRESQL else "?"
    marks = ", ".join([mark] * 4)
    text = (
        f"INSERT INTO {schema.LATEST.name} AS b (board, channel, at, payload) VALUES ({marks}) "  # noqa: S608
        "ON CONFLICT (board, channel) DO UPDATE SET at = excluded.at, payload = excluded.payload "
        "WHERE excluded.at >= b.at"
    )
    for row in sorted(rows):
        connection.exec_driver_sql(text, row)


def name_bundles(connection: sql.Connection, cards: Mapping[str, tuple[str, str]]) -> None:
    """Write what bundles are called: digest → (name, version)."""
    numbers = numbered(connection, schema.BUNDLES, schema.BUNDLES.c.digest, cards)
    for digest, (name, version) in sorted(cards.items()):
        wanted = sql.update(schema.BUNDLES).where(schema.BUNDLES.c.id == numbers[digest])
        # A digest is of one bundle: what it is called never changes.
        connection.execute(wanted.where(schema.BUNDLES.c.name.is_(None)).values(name=name, version=version))


def begin_append(connection: sql.Connection) -> None:
    """Let whoever looks for the last row know that rows are on their way."""
    if connection.dialect.name == _POSTGRESQL:
        # Whatever the server's own setting is: what was appended is on its disk.
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock_shared(APPEND_LOCK)))


def last_row(connection: sql.Connection, table: sql.Table) -> int:
    """Return the highest number of a row, below which none will appear any more; 0 of nothing.

    PostgreSQL gives numbers out before a transaction ends: there, it waits for those that append.
    """
    if connection.dialect.name == _POSTGRESQL:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(APPEND_LOCK)))
    return int(connection.execute(sql.select(sql.func.coalesce(sql.func.max(table.c.id), 0))).scalar_one())
