"""The store in a database: SQLite in one file, or PostgreSQL where several collectors share the work.

Rules it keeps: `port.Store`'s. Which numbers of a boot are stored stands in one row per boot, changed in the
transaction that adds the messages: so duplicates are known without an index over all messages, also after retention
forgot them, and gaps are exact. A store of a newer tflotilla, or of something else, is left as it is. Making sure that
the file is there is the first write's; looking makes none.
What it does NOT do: sum up (`folding`), forget (`retention`), answer (`history`).
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sql

from tflotilla.host.telemetry.store import folding, placing, retention, schema, statements, sums
from tflotilla.host.telemetry.store.numbers import Numbers
from tflotilla.host.telemetry.store.port import Arrival, Maintained, Outcome, UnavailableError
from tflotilla.host.telemetry.store.reserve import Reserve
from tflotilla.host.telemetry.store.retention import Retention
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FILE = "telemetry.db"
#: Boots that are remembered between batches; others are read again.
_MOST_BOOTS = 100_000


class _Boot:
    __slots__ = ("last_at", "number", "numbers")

    def __init__(self, number: int, numbers: Numbers) -> None:
        self.number = number
        self.numbers = numbers
        self.last_at = 0.0


def open_store(url: str, *, retention: Retention | None = None, where: str = "[telemetry] store") -> DatabaseStore:
    """Open a store; it is made when something is first written.

    Args:
        url: a file's path, `sqlite:////absolute/file`, or `postgresql://user@host/database`.
        retention: how long things are kept; by default for ever, as it is for who only reads.
        where: what a message calls the place the URL came from.

    Raises:
        InputError: it can't be opened, is none, is of a newer version, or psycopg is not installed.
        UnavailableError: the server is away, the file is locked.

    """
    engine, file = schema.engine(url, where=where)
    store = DatabaseStore(engine, file=file, retention=retention or Retention())
    if file is None or file.exists():
        with store.reading():
            pass
    return store


class DatabaseStore:
    """Implements `port.Store`. Safe to use from several threads."""

    def __init__(self, engine: sql.Engine, *, file: Path | None, retention: Retention) -> None:
        """Take an engine; `file` is SQLite's."""
        self.file = file
        self.where = str(file) if file is not None else schema.shown(engine.url)
        self.retention = retention
        self._engine = engine
        self._ready = False
        # SQLite has one writer, and who waits for it sleeps: threads of one process take turns here instead.
        self._turn = threading.Lock()
        self._folding = threading.Lock()
        self._reserve = None if file is None else Reserve(file)
        self._us = secrets.token_hex(8)
        self._boards: dict[str, int] = {}
        self._bundles: dict[str, int] = {}
        self._boots: dict[tuple[int, str], _Boot] = {}

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def append(self, batch: Sequence[Arrival]) -> list[Outcome]:
        """Keep a batch, see `port.Store`."""
        if not batch:
            return []
        with self._turn:
            try:
                with self.writing() as connection:
                    statements.begin_append(connection)
                    self._recollect(connection)
                    return self._append(connection, batch)
            except BaseException:
                # Nothing of it is in the database, whatever we remember.
                self._forget()
                raise

    def maintain(self, *, now: float, stop: Callable[[], bool] = lambda: False) -> Maintained:
        """Sum up and forget, see `port.Store`."""
        if self.file is not None and not self.file.exists():
            return Maintained()
        if self._reserve is not None:
            self._reserve.take()
        folded, more, problem = 0, False, None
        try:
            folded, more = folding.fold(self, now=now, stop=stop)
        except UnavailableError as error:
            # Forgetting may be what makes room for it.
            problem = error
        try:
            forgotten, more_to_forget = retention.forget(self, now=now, stop=stop)
        except UnavailableError:
            if self._reserve is None or not self._reserve.give():
                raise
            forgotten, more_to_forget = retention.forget(self, now=now, stop=stop)
        if problem is not None and not forgotten:
            raise problem
        return Maintained(folded=folded, forgotten=forgotten, more=more or more_to_forget)

    def close(self) -> None:
        """Let go of files and connections."""
        self._engine.dispose()

    # --- connections, also for `folding`, `retention` and `history`

    @contextlib.contextmanager
    def reading(self) -> Iterator[sql.Connection | None]:
        """Begin to read, all of it as of one moment; None where nothing was ever written."""
        if self.file is not None and not (self.file.exists() and self.file.stat().st_size):
            yield None
            return
        with self._translated(), self._engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901 - marked
            with connection.begin():
                if not self._ready:
                    self._ready = self._is_ours(connection)
                yield connection if self._ready else None

    @contextlib.contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """Begin to write; the caller has its turn."""
        if self.file is not None and not self._ready:
            try:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"the telemetry store {self.file} can't be made: {error.strerror or error}") from error
        with self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(tflotilla_writes=True)  # noqa: PLW2901 - the same one, with a mark
            with connection.begin():
                if not self._ready:
                    self._prepare(connection)
                yield connection
            self._ready = True

    @contextlib.contextmanager
    def taking_turns(self) -> Iterator[sql.Connection]:
        """Begin to write, between appends."""
        with self._turn, self.writing() as connection:
            yield connection

    @contextlib.contextmanager
    def alone(self, lock: int) -> Iterator[bool]:
        """Do something that one process at a time should do; whether it is us."""
        if self.file is not None:
            is_us = self._folding.acquire(blocking=False)
            try:
                yield is_us
            finally:
                if is_us:
                    self._folding.release()
            return
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield bool(connection.execute(sql.select(sql.func.pg_try_advisory_xact_lock(lock))).scalar())

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return schema.translated(self.where, self._engine.url.password)

    def _prepare(self, connection: sql.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(statements.SCHEMA_LOCK)))
        if self._is_ours(connection):
            return
        schema.TABLES.create_all(connection)
        connection.execute(sql.insert(schema.META).values(key="version", value=str(schema.VERSION)))
        connection.execute(sql.insert(schema.META).values(key="writer", value=self._us))
        rows = [{"source": source, "row": 0, "forgotten": 0} for source in ("metrics", "minutes", "hours", "days")]
        connection.execute(sql.insert(schema.WATERMARKS), rows)

    def _is_ours(self, connection: sql.Connection) -> bool:
        """Whether the tables are there. Raises InputError for those of somebody else or of a newer version."""
        names = sql.inspect(connection).get_table_names()
        if schema.META.name not in names:
            if names and connection.dialect.name == "sqlite":
                raise InputError(f"{self.where} is not a telemetry store; move it away to begin one")
            return False
        version: str | None = connection.execute(
            sql.select(schema.META.c.value).where(schema.META.c.key == "version")
        ).scalar_one()
        if version != str(schema.VERSION):
            raise InputError(f"{self.where} was written by a newer tflotilla (version {version}); upgrade this one")
        return True

    # --- appending

    def _recollect(self, connection: sql.Connection) -> None:
        """Forget what somebody else may have changed since."""
        if connection.dialect.name == "postgresql":
            self._boots.clear()
            return
        meta = schema.META
        if connection.execute(sql.select(meta.c.value).where(meta.c.key == "writer")).scalar() != self._us:
            self._forget()
            connection.execute(sql.update(meta).where(meta.c.key == "writer").values(value=self._us))

    def _forget(self) -> None:
        self._boards.clear()
        self._bundles.clear()
        self._boots.clear()

    def _append(self, connection: sql.Connection, batch: Sequence[Arrival]) -> list[Outcome]:
        kept = [placing.is_numbered(each) for each in batch]
        momentary = [each for each in batch if each.seq == 0 and each.channel in placing.LATEST]
        numbered = [each for each, is_kept in zip(batch, kept, strict=True) if is_kept]
        self._learn(connection, numbered, momentary)
        outcomes: list[Outcome] = []
        raw: dict[str, list[tuple[Any, ...]]] = {"metrics": [], "predictions": [], "reports": []}
        touched: dict[int, _Boot] = {}
        for each, is_kept in zip(batch, kept, strict=True):
            if not is_kept:
                outcomes.append("stored" if each.seq == 0 and each.channel in placing.LATEST else "refused")
                continue
            boot = self._boots[self._boards[each.board], each.boot]
            touched[boot.number] = boot
            boot.last_at = each.at
            if not boot.numbers.add(each.seq):
                outcomes.append("duplicate")
                continue
            outcomes.append("stored")
            raw[each.channel if each.channel in schema.RAW else "reports"].append(
                (
                    boot.number,
                    each.seq,
                    each.channel,
                    each.at,
                    placing.when(each.time, each.at),
                    self._bundles.get(each.bundle or "", 0),
                    each.payload,
                )
            )
        for name, rows in raw.items():
            statements.insert(connection, schema.TABLES.tables[f"telemetry_{name}"], statements.RAW_COLUMNS, rows)
        statements.update_boots(
            connection,
            [
                (number, boot.numbers.text(), boot.numbers.received, boot.numbers.duplicates, boot.last_at)
                for number, boot in sorted(touched.items())
            ],
        )
        self._keep_latest(connection, momentary)
        return outcomes

    def _learn(self, connection: sql.Connection, numbered: Sequence[Arrival], momentary: Sequence[Arrival]) -> None:
        """Know the rows of all boards, bundles and boots of a batch."""
        boards = {each.board for each in (*numbered, *momentary)} - self._boards.keys()
        self._boards |= statements.numbered(connection, schema.BOARDS, schema.BOARDS.c.name, boards)
        # What is no digest is no bundle either; the message still is one.
        bundles = {each.bundle for each in numbered if each.bundle and placing.is_name(each.bundle)}
        bundles -= self._bundles.keys()
        self._bundles |= statements.numbered(connection, schema.BUNDLES, schema.BUNDLES.c.digest, bundles)
        if len(self._boots) > _MOST_BOOTS:
            self._boots.clear()
        boots = {(self._boards[each.board], each.boot) for each in numbered} - self._boots.keys()
        at = min((each.at for each in numbered), default=0.0)
        for key, (number, ranges, received, duplicates) in statements.boots(connection, boots, at=at).items():
            numbers = Numbers.read(ranges, received=received, duplicates=duplicates)
            self._boots[key] = _Boot(number, numbers)

    def _keep_latest(self, connection: sql.Connection, momentary: Sequence[Arrival]) -> None:
        newest = {(each.board, each.channel): each for each in momentary}
        statements.upsert_latest(
            connection, [(self._boards[each.board], each.channel, each.at, each.payload) for each in newest.values()]
        )
        # A card that can't be written down is no card; the message still is one.
        cards = {
            card.digest: (card.name, card.version)
            for each in newest.values()
            for card in sums.cards(each.payload)
            if all(map(placing.is_name, (card.digest, card.name, card.version)))
        }
        if cards:
            statements.name_bundles(connection, cards)
