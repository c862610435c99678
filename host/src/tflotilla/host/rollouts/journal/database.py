"""The journal in a database: SQLite in one file, or PostgreSQL where several hosts share it.

Rules it keeps: what was appended is on the disk when `append` returns, and is never changed or deleted (triggers see to
that); numbers have no gaps; whoever lost a lease can't append under it. Looking into a journal that does not exist
makes none. A damaged SQLite file is kept beside what could be saved of it, and nobody goes on as if nothing were lost;
one of a newer tflotilla is left as it is. Passwords stay out of messages.
What it does NOT do: know what events mean, or carve damaged files (`salvage`).
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy import exc

from tflotilla.host.rollouts import events as kinds
from tflotilla.host.rollouts.journal import files as journal_files
from tflotilla.host.rollouts.journal import process_identity, salvage, schema
from tflotilla.host.rollouts.journal.audit import Head, chained, verify
from tflotilla.host.rollouts.journal.port import AuditEntry, Lease, Recorded
from tflotilla.host.rollouts.journal.process_identity import ProcessIdentity
from tflotilla.host.rollouts.plan import Plan
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BusyError, ConflictError, ContractError, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.events import Event

FILE = "rollouts.db"
_FILE_URL = "sqlite:///"
_VERSION = 1
#: Serializes what concerns all of a PostgreSQL database: its tables, the audit log's end, the order of rollouts.
_SCHEMA_LOCK, _AUDIT_LOCK, _ORDER_LOCK = 0x7F101, 0x7F102, 0x7F103
_MOST_NAMED = 5


def url_of(fleet: Fleet) -> str:
    """Return where a fleet's rollouts are kept: `[rollouts] journal`, else .tflotilla/rollouts.db."""
    said = fleet.rollouts.journal
    if said is None:
        return f"{_FILE_URL}{fleet.state / FILE}"
    return said if "://" in said else f"{_FILE_URL}{fleet.resolve(said)}"


def of_fleet(fleet: Fleet, *, tell: Callable[[str], None] = lambda _line: None) -> DatabaseJournal:
    """Open the journal of a fleet; see `open_journal`. What its last audit entry was is known beside fleet.toml too."""
    return open_journal(url_of(fleet), tell=tell, witness=fleet.state / "rollouts.head")


def open_journal(
    url: str,
    *,
    tell: Callable[[str], None] = lambda _line: None,
    witness: Path | None = None,
    clock: Callable[[], float] = time.time,
) -> DatabaseJournal:
    """Open a journal; it is made when something is first written.

    Args:
        url: `sqlite:////absolute/file`, or `postgresql://user@host/database`.
        tell: hears one line when the file was damaged, and what became of it.
        witness: the file that knows PostgreSQL's last audit entry, apart from it; an SQLite file has its own.
        clock: Unix seconds.

    Raises:
        InputError: it can't be opened, is none, is of a newer version, or the server is away.

    """
    if url.startswith(_FILE_URL):
        # By hand: a folder's name may hold what means something in a URL.
        return _open_file(Path(url.removeprefix(_FILE_URL)).absolute(), tell, clock)
    try:
        parsed = sql.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        # SQLAlchemy's words repeat the URL, and with it a password.
        raise InputError("[rollouts] journal is no URL: postgresql://user@host/database, or a file's path") from error
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return DatabaseJournal(schema.postgresql(parsed), witness=witness)
    raise InputError(f"[rollouts] journal: {parsed.drivername} is not supported; use postgresql:// or a file's path")


class DatabaseJournal:
    """Implements `port.Journal`. Safe to use from several threads."""

    def __init__(self, engine: sql.Engine, *, file: Path | None = None, witness: Path | None = None) -> None:
        """Take an engine; `file` is SQLite's."""
        self._engine = engine
        self._file = file
        self._witness = witness
        self._where = str(file) if file is not None else schema.shown(engine.url)
        self._ready = False
        self._ids: dict[str, int] = {}

    # --- rollouts and their events

    def create(self, plan: Plan, *, by: str, at: float) -> None:
        """Keep a plan and begin its story. Raises ConflictError: there is such a rollout."""
        row = {"name": plan.rollout, "created": at, "by": _clean(by), "plan": _text(codec.encode(plan))}
        try:
            with self._writing() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_ORDER_LOCK)))
                connection.execute(sql.insert(schema.ROLLOUTS).values(row))
        except schema.DuplicateError as error:
            raise ConflictError(f"there is a rollout {plan.rollout} already") from error

    def rollouts(self) -> tuple[str, ...]:
        """Return the names of all rollouts, oldest first."""
        return tuple(self.lengths())

    def lengths(self) -> Mapping[str, int]:
        """Return how many events each rollout has, oldest first."""
        with self._reading() as connection:
            if connection is None:
                return {}
            # One look at the end of an index each, however long the stories are.
            last = sql.select(sql.func.max(schema.EVENTS.c.number)).where(
                schema.EVENTS.c.rollout == schema.ROLLOUTS.c.id
            )
            wanted = sql.select(schema.ROLLOUTS.c.name, sql.func.coalesce(last.scalar_subquery(), 0))
            found: Sequence[Any] = connection.execute(wanted.order_by(schema.ROLLOUTS.c.id)).all()
        return {name: int(number) for name, number in found}

    def plan(self, rollout: str) -> Plan:
        """Return a plan. Raises UsageError naming the last rollouts when there is none of that name."""
        with self._reading() as connection:
            found = None
            if connection is not None:
                found = connection.execute(
                    sql.select(schema.ROLLOUTS.c.plan).where(schema.ROLLOUTS.c.name == rollout)
                ).scalar()
        if found is None:
            raise UsageError(self._unknown(rollout))
        where = f"{self._where}: plan of {rollout}"
        return codec.decode(Plan, _json(found, where), where)

    def events(self, rollout: str, *, after: int = 0) -> tuple[Recorded, ...]:
        """Return what happened, in order, beginning after that number.

        Raises:
            UsageError: there is no such rollout.
            ContractError: an event is of a newer tflotilla.
            InputError: events are missing.

        """
        with self._reading() as connection:
            if connection is None:
                raise UsageError(self._unknown(rollout))
            wanted = sql.select(
                schema.EVENTS.c.number, schema.EVENTS.c.at, schema.EVENTS.c.by, schema.EVENTS.c.document
            )
            wanted = wanted.where(
                schema.EVENTS.c.rollout == self._id(connection, rollout), schema.EVENTS.c.number > after
            )
            rows: Sequence[Any] = connection.execute(wanted.order_by(schema.EVENTS.c.number)).all()
        if rows and rows[-1][0] != after + len(rows):
            raise InputError(f"{self._where}: events of {rollout} after number {after} are missing")
        return tuple(
            Recorded(number=number, at=at, by=by, event=_event(document, f"{rollout}: event {number}"))
            for number, at, by, document in rows
        )

    def append(
        self, rollout: str, events: Sequence[Event], *, by: str, at: float, lease: Lease | None = None
    ) -> tuple[Recorded, ...]:
        """Add events, all or none, durably. Raises ConflictError when the lease was lost to another conductor."""
        if not events:
            return ()
        documents = [_document(event) for event in events]
        by = _clean(by)
        with self._writing() as connection:
            identifier = self._id(connection, rollout, lock=True)
            if lease is not None:
                self._check(connection, identifier, lease)
            last = sql.select(sql.func.coalesce(sql.func.max(schema.EVENTS.c.number), 0))
            first = 1 + connection.execute(last.where(schema.EVENTS.c.rollout == identifier)).scalar_one()
            rows = [
                {"rollout": identifier, "number": number, "at": at, "by": by, "document": document}
                for number, document in enumerate(documents, first)
            ]
            connection.execute(sql.insert(schema.EVENTS), rows)
        return tuple(Recorded(number=number, at=at, by=by, event=event) for number, event in enumerate(events, first))

    # --- leases

    def take(self, rollout: str, *, holder: str, at: float, for_s: float) -> Lease:
        """Become the conductor of a rollout. Raises BusyError, naming who is."""
        process = process_identity.of_this_process()
        with self._writing() as connection:
            identifier = self._id(connection, rollout, lock=True)
            row = connection.execute(
                sql.select(schema.LEASES).where(schema.LEASES.c.rollout == identifier)
            ).one_or_none()
            if row is not None and (other := _holder(row, at)) is not None:
                raise BusyError(
                    f"{rollout} is conducted by {other}; it goes on there, or can be taken over "
                    f"{max(row.until - at, 0):.0f} s after that process went away"
                )
            # Never one that was given out already, also not by a journal that was lost: it fences.
            token = max(0 if row is None else row.token + 1, time.time_ns() // 1_000_000)
            values = {
                "token": token,
                "holder": _clean(holder),
                "until": at + for_s,
                "place": process.place,
                "pid": process.pid,
                "began": process.began,
            }
            if row is None:
                connection.execute(sql.insert(schema.LEASES).values(rollout=identifier, **values))
            else:
                connection.execute(
                    sql.update(schema.LEASES).where(schema.LEASES.c.rollout == identifier).values(values)
                )
        return Lease(rollout=rollout, holder=_clean(holder), token=token, until=at + for_s)

    def renew(self, lease: Lease, *, at: float, for_s: float) -> Lease:
        """Keep it. Raises ConflictError when it was lost."""
        with self._writing() as connection:
            identifier = self._id(connection, lease.rollout, lock=True)
            self._check(connection, identifier, lease)
            wanted = sql.update(schema.LEASES).where(schema.LEASES.c.rollout == identifier)
            connection.execute(wanted.values(until=at + for_s))
        return Lease(rollout=lease.rollout, holder=lease.holder, token=lease.token, until=at + for_s)

    def release(self, lease: Lease) -> None:
        """Give it back, if it is still ours."""
        with self._writing() as connection:
            identifier = self._id(connection, lease.rollout, lock=True)
            ours = (schema.LEASES.c.rollout == identifier) & (schema.LEASES.c.token == lease.token)
            # The row stays: the next token must be another one.
            connection.execute(sql.update(schema.LEASES).where(ours).values(holder=None, until=0.0))

    def conductor(self, rollout: str, *, at: float) -> str | None:
        """Return who conducts a rollout now."""
        with self._reading() as connection:
            if connection is None:
                return None
            wanted = sql.select(schema.LEASES).where(schema.LEASES.c.rollout == self._id(connection, rollout))
            row = connection.execute(wanted).one_or_none()
        return None if row is None else _holder(row, at)

    # --- audit

    def audit(self, action: str, *, by: str, at: float, rollout: str | None, detail: Mapping[str, Any]) -> AuditEntry:
        """Add to the audit log, durably."""
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_AUDIT_LOCK)))
            wanted = sql.select(schema.AUDIT.c.document, schema.AUDIT.c.number).order_by(schema.AUDIT.c.number.desc())
            row = connection.execute(wanted.limit(1)).one_or_none()
            last = None if row is None else self._entry(row.document, row.number)
            entry = chained(last, at=at, by=by, action=action, rollout=rollout, detail=detail)
            connection.execute(
                sql.insert(schema.AUDIT).values(number=entry.number, document=_text(codec.encode(entry)))
            )
        journal_files.keep_head(self._witness, Head(number=entry.number, digest=entry.digest))
        return entry

    def audit_log(self) -> tuple[AuditEntry, ...]:
        """Return the audit log, oldest first."""
        with self._reading() as connection:
            if connection is None:
                return ()
            wanted = sql.select(schema.AUDIT.c.number, schema.AUDIT.c.document).order_by(schema.AUDIT.c.number)
            rows: Sequence[Any] = connection.execute(wanted).all()
        return tuple(self._entry(document, number) for number, document in rows)

    def audit_fault(self) -> str | None:
        """Return what is wrong with the audit log, naming the first entry that is broken; None when nothing is."""
        try:
            return verify(self.audit_log(), head=journal_files.head(self._witness))
        except ContractError as error:
            return str(error)

    def close(self) -> None:
        """Let go of files and connections."""
        self._engine.dispose()

    # --- behind them

    def restore(self, saved: salvage.Salvaged, *, damaged: Path, known: Head | None, at: float) -> Head:
        """Fill an empty journal with what a damaged one still held, and have what would go on wait for a person.

        Returns the end of its audit log; `known` is what that of the damaged one was known to be.
        """
        with self._writing() as connection:
            for row in saved.rollouts:
                values = {"id": row.identifier, "name": row.name, "created": row.created, "by": row.by}
                connection.execute(sql.insert(schema.ROLLOUTS).values(**values, plan=row.plan))
                story = [(each.number, each.at, each.by, each.document) for each in row.events]
                if row.moves:
                    # Nobody knows whether a person had stopped it in what is lost.
                    story.append((len(story) + 1, at, "tflotilla", _document(kinds.Paused())))
                if story:
                    names = ("rollout", "number", "at", "by", "document")
                    rows: list[dict[str, Any]] = [
                        dict(zip(names, (row.identifier, *each), strict=True)) for each in story
                    ]
                    connection.execute(sql.insert(schema.EVENTS), rows)
            for number, document in saved.audit.items():
                connection.execute(sql.insert(schema.AUDIT).values(number=number, document=document))
        detail = {
            "damaged_file": damaged.name,
            "rollouts": len(saved.rollouts),
            "events": sum(len(row.events) for row in saved.rollouts),
            "events_lost": saved.lost_events,
            "audit_entries": len(saved.audit),
            "last_known_entry": None if known is None else codec.encode(known),
        }
        entry = self.audit("salvage", by="tflotilla", at=at, rollout=None, detail=detail)
        return Head(number=entry.number, digest=entry.digest)

    def check(self) -> None:
        """Read it once. Raises InputError for what is no journal, damaged, of a newer version, or away."""
        with self._reading() as connection:
            if connection is not None and self._file is not None:
                said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if said != "ok":
                    raise schema.DamagedError(f"{self._file} is damaged: {said}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sql.Connection | None]:
        """Begin to read; None where nothing was ever written."""
        if self._file is not None and not journal_files.has_bytes(self._file):
            yield None
            return
        with self._translated(), self._engine.connect() as connection, connection.begin():
            if not self._ready:
                self._ready = self._is_ours(connection)
            yield connection if self._ready else None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        if self._file is not None and not self._ready:
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"the journal {self._file} can't be made: {error.strerror or error}") from error
        with self._translated(), self._engine.connect() as connection:
            connection = connection.execution_options(tflotilla_writes=True)  # noqa: PLW2901 - the same one, with a mark
            with connection.begin():
                if not self._ready:
                    self._prepare(connection)
                if connection.dialect.name == "postgresql":
                    # Whatever the server's own setting is: what was appended is on its disk.
                    connection.execute(sql.text("SET LOCAL synchronous_commit = on"))
                yield connection
                schema.check_place(connection, self._file)
            self._ready = True

    def _prepare(self, connection: sql.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        if self._is_ours(connection):
            return
        schema.TABLES.create_all(connection)
        connection.execute(sql.insert(schema.META).values(key="version", value=str(_VERSION)))

    def _is_ours(self, connection: sql.Connection) -> bool:
        """Whether the tables are there. Raises InputError for those of somebody else or of a newer version."""
        names = sql.inspect(connection).get_table_names()
        if schema.META.name not in names:
            if names and connection.dialect.name == "sqlite":
                raise InputError(f"{self._where} is not a journal of rollouts; move it away to begin one")
            return False
        version: str | None = connection.execute(
            sql.select(schema.META.c.value).where(schema.META.c.key == "version")
        ).scalar_one()
        if version != str(_VERSION):
            raise InputError(f"{self._where} was written by a newer tflotilla (version {version}); upgrade this one")
        return True

    def _id(self, connection: sql.Connection, rollout: str, *, lock: bool = False) -> int:
        """Return a rollout's row, locked against other writers where the database doesn't do that by itself."""
        if rollout in self._ids and not (lock and connection.dialect.name == "postgresql"):
            return self._ids[rollout]
        wanted = sql.select(schema.ROLLOUTS.c.id).where(schema.ROLLOUTS.c.name == rollout)
        found = connection.execute(wanted.with_for_update() if lock else wanted).scalar()
        if found is None:
            raise UsageError(self._unknown(rollout))
        self._ids[rollout] = int(found)
        return int(found)

    def _check(self, connection: sql.Connection, identifier: int, lease: Lease) -> None:
        row = connection.execute(sql.select(schema.LEASES).where(schema.LEASES.c.rollout == identifier)).one_or_none()
        if row is None or row.token != lease.token or row.holder is None:
            who = "nobody" if row is None or row.holder is None else row.holder
            raise ConflictError(f"{lease.rollout} is conducted by {who} now, not by {lease.holder} any more")

    def _unknown(self, rollout: str) -> str:
        names = self.rollouts()[-_MOST_NAMED:]
        if not names:
            return f"there is no rollout {rollout!r}: none was ever begun here ({self._where})"
        return f"there is no rollout {rollout!r}; the last are {', '.join(reversed(names))}"

    def _entry(self, document: str, number: int) -> AuditEntry:
        where = f"{self._where}: entry {number} of the audit log"
        return codec.decode(AuditEntry, _json(document, where), where)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise schema.complaint(error, self._where, self._engine.url.password) from error


def _open_file(path: Path, tell: Callable[[str], None], clock: Callable[[], float]) -> DatabaseJournal:
    """Open an SQLite journal, saving what can be saved of a damaged one."""
    journal = DatabaseJournal(schema.sqlite(path), file=path, witness=journal_files.head_file(path))
    try:
        if journal_files.there(path):
            with journal_files.locked(path):
                journal_files.finish(path)
                try:
                    _look(journal, path)
                except schema.DamagedError as error:
                    journal.close()
                    tell(_save(path, str(error), clock()))
                    journal = DatabaseJournal(schema.sqlite(path), file=path, witness=journal_files.head_file(path))
                    journal.check()
    except OSError as error:
        raise InputError(f"the journal {path} can't be used: {error.strerror or error}") from error
    return journal


def _look(journal: DatabaseJournal, path: Path) -> None:
    if journal_files.has_bytes(path) and not journal_files.is_cut_off(path):
        journal.check()
        return
    known = journal_files.head(journal_files.head_file(path))
    told = "" if known is None else f", and its audit log had {known.number} entries"
    raise schema.DamagedError(f"{path} is {journal_files.what_is_left(path)}{told}")


def _save(path: Path, fault: str, at: float) -> str:
    """Put what can be read of a damaged journal in its place; return what is to be said about it."""
    saved = salvage.journal(*journal_files.contents(path))
    if not saved.rollouts and not saved.audit:
        head = journal_files.head_file(path).name
        raise InputError(
            f"{fault}; nothing of it can be read: bring it back from a copy, or move it and {head} away to begin anew"
        )
    kept = journal_files.set_aside(path, at)
    new = journal_files.scratch(path)
    journal = DatabaseJournal(schema.sqlite(new, log=False), file=new)
    try:
        known = journal_files.head(journal_files.head_file(path))
        last = journal.restore(saved, damaged=kept, known=known, at=at)
    finally:
        journal.close()
    journal_files.exchange(path, new, last)
    paused = [row.name for row in saved.rollouts if row.moves]
    events_saved = sum(len(row.events) for row in saved.rollouts)
    return (
        f"{fault}; saved were {len(saved.rollouts)} rollouts with {events_saved} events and {len(saved.audit)} audit "
        f"entries, not so at least {saved.lost_events} events; the damaged file is {kept.name}"
        + (f"; paused until you look at them: {', '.join(paused)}" if paused else "")
    )


def _holder(row: Any, at: float) -> str | None:  # noqa: ANN401 - a row of schema.LEASES
    """Return who holds a lease, None when nobody does any more."""
    process = ProcessIdentity(place=row.place, pid=row.pid, began=row.began)
    if row.holder is None or row.until <= at or process_identity.is_gone(process):
        return None
    return str(row.holder)


def _document(event: Event) -> str:
    return _text(kinds.to_document(event))


def _event(document: str, where: str) -> Event:
    return kinds.from_document(_json(document, where), where)


def _json(document: str, where: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(document)
    except ValueError as error:
        raise ContractError(f"{where} is damaged ({error})") from error


def _text(document: Any) -> str:  # noqa: ANN401 - any JSON document
    # Only ASCII, and no NUL: what no database takes stands in it escaped.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _clean(text: str) -> str:
    return text.replace("\0", "").encode(errors="backslashreplace").decode()
