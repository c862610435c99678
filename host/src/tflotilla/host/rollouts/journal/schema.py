"""What the journal's database looks like, and how it is reached: tables, engines, and errors in our words.

Rules it keeps: plans, events and audit entries can't be changed or deleted, triggers see to that; a transaction that
writes is alone from its beginning; SQLite is on the disk when a commit returns. Passwords stay out of messages.
What it does NOT do: read or write rows (`database`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy import exc

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE_S = 20
_CONNECT_S = 10
_LONGEST_REASON = 300
#: SQLITE_CORRUPT and SQLITE_NOTADB.
_SQLITE_DAMAGED = (11, 26)

TABLES = sql.MetaData()
META = sql.Table("tflotilla_meta", TABLES, sql.Column("key", sql.Text, primary_key=True), sql.Column("value", sql.Text))
# `salvage` tells the rows of these three tables apart by the number and kinds of their columns.
ROLLOUTS = sql.Table(
    "tflotilla_rollouts",
    TABLES,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.Text, nullable=False, unique=True),
    sql.Column("created", sql.Double, nullable=False),
    sql.Column("by", sql.Text, nullable=False),
    sql.Column("plan", sql.Text, nullable=False),
)
EVENTS = sql.Table(
    "tflotilla_events",
    TABLES,
    sql.Column("rollout", sql.ForeignKey(ROLLOUTS.c.id), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("at", sql.Double, nullable=False),
    sql.Column("by", sql.Text, nullable=False),
    sql.Column("document", sql.Text, nullable=False),
)
AUDIT = sql.Table(
    "tflotilla_audit",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("document", sql.Text, nullable=False),
)
LEASES = sql.Table(
    "tflotilla_leases",
    TABLES,
    sql.Column("rollout", sql.ForeignKey(ROLLOUTS.c.id), primary_key=True, autoincrement=False),
    sql.Column("token", sql.BigInteger, nullable=False),
    sql.Column("holder", sql.Text),
    sql.Column("until", sql.Double, nullable=False),
    sql.Column("place", sql.Text, nullable=False),
    sql.Column("pid", sql.BigInteger, nullable=False),
    sql.Column("began", sql.Text, nullable=False),
)
_REFUSAL = "the journal is append-only"


def _when_made(target: sql.Table | sql.MetaData, when: str, dialect: str, statement: str) -> None:
    made: sql.DDL = sql.DDL(statement)  # type: ignore[no-untyped-call]
    sql.event.listen(target, when, made.execute_if(dialect=dialect))


_when_made(
    TABLES,
    "before_create",
    "postgresql",
    "CREATE OR REPLACE FUNCTION tflotilla_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
)
for _table in (ROLLOUTS, EVENTS, AUDIT):
    for _change in ("UPDATE", "DELETE"):
        _trigger = f"CREATE TRIGGER {_table.name}_no_{_change.lower()} BEFORE {_change} ON {_table.name}"
        _when_made(_table, "after_create", "sqlite", f"{_trigger} BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END")
        _when_made(_table, "after_create", "postgresql", f"{_trigger} FOR EACH ROW EXECUTE FUNCTION tflotilla_refuse()")


class DuplicateError(InputError):
    """A row is there already."""


class DamagedError(InputError):
    """An SQLite file is none, or contradicts itself."""


def sqlite(path: Path, *, log: bool = True) -> sql.Engine:
    """Return an engine for a file; `log` keeps its changes in a write-ahead log, so that readers never wait."""
    engine = sql.create_engine(sql.URL.create("sqlite", database=str(path)), connect_args={"timeout": _PATIENCE_S})

    def prepare(connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's own
        # SQLAlchemy's begin below is the only one: the driver's own would leave out what changes tables.
        connection.isolation_level = None
        connection.execute(f"PRAGMA journal_mode = {'WAL' if log else 'DELETE'}")
        # Of a write-ahead log NORMAL loses the last transactions at a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        record.info["place"] = _place(path)

    def begin(connection: sql.Connection) -> None:
        writes = connection.get_execution_options().get("tflotilla_writes")
        # A transaction that reads first and then writes would be refused when somebody wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sql.event.listen(engine, "connect", prepare)
    sql.event.listen(engine, "begin", begin)
    return engine


def postgresql(url: sql.URL) -> sql.Engine:
    """Return an engine for a server; it connects when it is used. Raises InputError: psycopg is not installed."""
    settings = {"connect_timeout": _CONNECT_S, "application_name": "tflotilla"}
    try:
        # Asked before use: a server that was restarted meanwhile is none that is away.
        return sql.create_engine(url.set(drivername="postgresql+psycopg"), connect_args=settings, pool_pre_ping=True)
    except ImportError as error:
        raise InputError("a journal on PostgreSQL needs psycopg: pip install 'tflotilla-host[scale]'") from error


def check_place(connection: sql.Connection, file: Path | None) -> None:
    """Refuse to write into a file that was moved away or replaced. Raises InputError."""
    if file is not None and _place(file) != connection.info["place"]:
        raise InputError(f"{file} was moved or replaced while it was in use; nothing was written, begin again")


def _place(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def shown(url: sql.URL) -> str:
    """Return a server's URL for messages: without password, and without parameters, which may be one too."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{user}{url.host or ''}{port}/{url.database or ''}"


def complaint(error: exc.SQLAlchemyError, where: str, secret: str | None) -> InputError:
    """Put an error of the database in a line; `secret` doesn't stand in it."""
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split())
    text = (text.replace(secret, "***") if secret else text)[:_LONGEST_REASON]
    damaged = getattr(original, "sqlite_errorcode", None) in _SQLITE_DAMAGED
    kind = DamagedError if damaged else DuplicateError if isinstance(error, exc.IntegrityError) else InputError
    return kind(f"the journal {where} can't be used: {text}")
