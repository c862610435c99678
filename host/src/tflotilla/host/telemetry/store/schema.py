"""What the store's database looks like, and how it is reached: tables, engines, and errors in our words.

Rules it keeps: one schema for SQLite and PostgreSQL; SQLite is on the disk when a commit returns, and gives pages back
that retention freed; a number that was a row's is never another's (sums are made up to a row's number). Passwords stay
out of messages. What it does NOT do: read or write rows.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy import exc

from tflotilla.host.telemetry.store.port import UnavailableError
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
FILE_URL = "sqlite:///"
#: Somebody else writes for milliseconds; one that holds on for longer is said, and tried again.
_PATIENCE_S = 5
_CONNECT_S = 10
_LONGEST_REASON = 300
#: A page holds a row of metrics or several; with small ones much is wasted.
_PAGE_BYTES = 8192
#: 32 MiB: a checkpoint writes each page once, however often it changed.
_LOG_PAGES = 4096
_LOG_BYTES = 64 << 20
#: SQLITE_CORRUPT and SQLITE_NOTADB; SQLITE_BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL and CANTOPEN pass.
_SQLITE_DAMAGED = (11, 26)
_SQLITE_PASSING = (5, 6, 7, 8, 10, 13, 14)
#: PostgreSQL's classes of passing errors: connection, rolled back, no resources, an operator's doing, the system.
_POSTGRESQL_PASSING = ("08", "25", "40", "53", "55", "57", "58")

TABLES = sql.MetaData()
_ID = sql.BigInteger().with_variant(sql.Integer, "sqlite")


def _table(name: str, *columns: sql.Column[Any] | sql.Index | sql.UniqueConstraint) -> sql.Table:
    return sql.Table(f"telemetry_{name}", TABLES, *columns, sqlite_autoincrement=True)


META = sql.Table("telemetry_meta", TABLES, sql.Column("key", sql.Text, primary_key=True), sql.Column("value", sql.Text))
BOARDS = _table("boards", sql.Column("id", _ID, primary_key=True), sql.Column("name", sql.Text, unique=True))
BUNDLES = _table(
    "bundles",
    sql.Column("id", _ID, primary_key=True),
    sql.Column("digest", sql.Text, unique=True),
    # Of its model card; None until a board sent one.
    sql.Column("name", sql.Text),
    sql.Column("version", sql.Text),
)
BOOTS = _table(
    "boots",
    sql.Column("id", _ID, primary_key=True),
    sql.Column("board", _ID, nullable=False),
    sql.Column("boot", sql.Text, nullable=False),
    # As `numbers.Numbers` writes them: also of rows that are forgotten.
    sql.Column("ranges", sql.Text, nullable=False),
    sql.Column("received", sql.BigInteger, nullable=False),
    sql.Column("duplicates", sql.BigInteger, nullable=False),
    sql.Column("first_at", sql.Double, nullable=False),
    sql.Column("last_at", sql.Double, nullable=False),
    sql.UniqueConstraint("board", "boot"),
)
#: The newest of what boards say of the moment.
LATEST = sql.Table(
    "telemetry_latest",
    TABLES,
    sql.Column("board", _ID, primary_key=True, autoincrement=False),
    sql.Column("channel", sql.Text, primary_key=True),
    sql.Column("at", sql.Double, nullable=False),
    sql.Column("payload", sql.LargeBinary, nullable=False),
)


def _raw(name: str) -> sql.Table:
    return _table(
        name,
        sql.Column("id", _ID, primary_key=True),
        sql.Column("boot", _ID, nullable=False),
        sql.Column("seq", sql.BigInteger, nullable=False),
        sql.Column("channel", sql.Text, nullable=False),
        # When it came, and when it counts: see `placing`.
        sql.Column("at", sql.Double, nullable=False),
        sql.Column("time", sql.Double, nullable=False),
        # 0 is none.
        sql.Column("bundle", _ID, nullable=False),
        sql.Column("payload", sql.LargeBinary, nullable=False),
        # Rows come nearly in this order, so the index grows at its end.
        sql.Index(f"telemetry_{name}_by_time", "time"),
    )


METRICS = _raw("metrics")
PREDICTIONS = _raw("predictions")
#: deployment, benchmark, event: few, and worth keeping for longer.
REPORTS = _raw("reports")
RAW = {"metrics": METRICS, "predictions": PREDICTIONS}


def _parts(name: str) -> sql.Table:
    return _table(
        name,
        sql.Column("id", _ID, primary_key=True),
        # Unix seconds.
        sql.Column("start", sql.BigInteger, nullable=False),
        sql.Column("board", _ID, nullable=False),
        sql.Column("bundle", _ID, nullable=False),
        sql.Column("sums", sql.LargeBinary, nullable=False),
        sql.Index(f"telemetry_{name}_by_start", "start", "board"),
    )


#: Parts of sums: there may be several of one span, board and bundle. Adding them up is for whoever asks: so summing up
#: only ever appends, and what comes late needs nothing special.
MINUTES = _parts("minutes")
HOURS = _parts("hours")
DAYS = _parts("days")
#: Up to which row of a table is in the sums of the next.
WATERMARKS = sql.Table(
    "telemetry_watermarks",
    TABLES,
    sql.Column("source", sql.Text, primary_key=True),
    sql.Column("row", sql.BigInteger, nullable=False),
    # Sums of spans that begin before it were forgotten.
    sql.Column("forgotten", sql.BigInteger, nullable=False),
)


def engine(url: str, *, where: str = "[telemetry] store") -> tuple[sql.Engine, Path | None]:
    """Return an engine, and its file if it is SQLite's; nothing is opened yet.

    Raises:
        InputError: it is no URL, of another database, or psycopg is not installed.

    """
    if "://" not in url or url.startswith(FILE_URL):
        # By hand: a folder's name may hold what means something in a URL.
        file = Path(url.removeprefix(FILE_URL)).absolute()
        if file.is_dir():
            raise InputError(f"{where}: {file} is a folder; name a file in it")
        return _sqlite(file), file
    try:
        parsed = sql.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        # SQLAlchemy's words repeat the URL, and with it a password.
        raise InputError(f"{where} is no URL: postgresql://user@host/database, or a file's path") from error
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql(parsed), None
    raise InputError(f"{where}: {parsed.drivername} is not supported; use postgresql:// or a file's path")


def _sqlite(path: Path) -> sql.Engine:
    made = sql.create_engine(sql.URL.create("sqlite", database=str(path)), connect_args={"timeout": _PATIENCE_S})

    def prepare(connection: Any, _record: Any) -> None:  # noqa: ANN401 - the driver's own
        # SQLAlchemy's begin below is the only one: the driver's own would leave out what changes tables.
        connection.isolation_level = None
        # These two hold for a file that is made now; an old one keeps what it has.
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # Of a write-ahead log NORMAL loses the last transactions at a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")

    def begin(connection: sql.Connection) -> None:
        writes = connection.get_execution_options().get("tflotilla_writes")
        # A transaction that reads first and then writes would be refused when somebody wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sql.event.listen(made, "connect", prepare)
    sql.event.listen(made, "begin", begin)
    return made


def _postgresql(url: sql.URL) -> sql.Engine:
    settings = {"connect_timeout": _CONNECT_S, "application_name": "tflotilla"}
    try:
        # Asked before use: a server that was restarted meanwhile is none that is away.
        return sql.create_engine(url.set(drivername="postgresql+psycopg"), connect_args=settings, pool_pre_ping=True)
    except ImportError as error:
        raise InputError("a store on PostgreSQL needs psycopg: pip install 'tflotilla-host[scale]'") from error


def shown(url: sql.URL) -> str:
    """Return a server's URL for messages: without password, and without parameters, which may be one too."""
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{user}{url.host or ''}{port}/{url.database or ''}"


@contextlib.contextmanager
def translated(where: str, secret: str | None) -> Iterator[None]:
    """Turn the database's errors into one line of ours; `secret` doesn't stand in it.

    Raises:
        UnavailableError: it passes: locked, full, away.
        InputError: it doesn't.

    """
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise _complaint(error, where, secret) from error


def _complaint(error: exc.SQLAlchemyError, where: str, secret: str | None) -> InputError:
    original = getattr(error, "orig", None) or error
    text = " ".join(str(original).split())
    text = (text.replace(secret, "***") if secret else text)[:_LONGEST_REASON]
    number = getattr(original, "sqlite_errorcode", None)
    state = getattr(original, "sqlstate", None)
    if number is not None and number & 0xFF in _SQLITE_DAMAGED:
        return InputError(f"the telemetry store {where} is damaged: {text}; move it away to begin a new one")
    passing = number is not None and number & 0xFF in _SQLITE_PASSING
    passing |= state is not None and state[:2] in _POSTGRESQL_PASSING
    # An error of the connection has no number: the server is away.
    passing |= number is None and state is None and isinstance(error, exc.OperationalError | exc.TimeoutError)
    kind = UnavailableError if passing else InputError
    return kind(f"the telemetry store {where} can't be used: {text}")
