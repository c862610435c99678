"""The bounded queue of undelivered reports, on disk in SQLite.

Rules it keeps:
- rows leave only when they are settled (the broker took them) or acknowledged (a collector stored them), or as the
  oldest when there are more bytes than allowed, which is counted;
- what `commit` wrote survives a kill and, with WAL and `synchronous=FULL`, a power cut; it is called per window, not
  per report, and what was settled before its turn never touches the disk (flash wears);
- nothing here raises because of the disk: a full or broken one becomes `problem`, rows wait in a bounded part of
  memory, and inference goes on. On a full disk DELETE fails too, so a reserve file is there to be given up.

Three steps make one commit, so that the slow one may run in a thread: `plan` (take a snapshot), `write` (touches the
disk and nothing else), `finish` (draw the conclusions). One commit at a time; everything else on one thread.
What it does NOT do: number, envelope or send.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.device.acknowledged import Acknowledged, Ranges, holds
from tflotilla.shared.contract.topics import Channel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


#: What a row costs beside its payload, roughly: keys, page slack.
ROW_OVERHEAD_BYTES = 128
#: How much may wait in memory while the disk refuses.
MEMORY_LIMIT_BYTES = 2 << 20
_RESERVE_BYTES = 1 << 20
_PAGE_BYTES = 4096
_TIGHT = "the disk is full: the oldest reports make room for the newest"
_TRANSACTION_BYTES = 256 << 10
#: What SQLite says of a full disk and of `max_page_count`; Python 3.10 offers no error code.
_FULL = "is full"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL, channel TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One report; `id` is its place in the queue of this board, over all boots."""

    id: int
    boot: str
    seq: int
    channel: Channel
    payload: bytes

    @property
    def cost_bytes(self) -> int:
        """What it counts against the limit."""
        return len(self.payload) + ROW_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one commit is to do."""

    insert: tuple[Row, ...]
    delete: frozenset[int]
    acknowledged: Mapping[str, Ranges]
    #: What the rows on disk count before this commit, and what they may count after it.
    bytes_before: int
    max_bytes: int
    dropped_in_memory: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.insert or self.delete or self.acknowledged or self.dropped_in_memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """By how much a commit changed what is on disk; `problem` says why it did not do everything.

    `inserted` of the plan's rows are on disk, from the first; nothing of the plan is done when `begun` is False.
    """

    begun: bool = False
    inserted: int = 0
    rows: int = 0
    bytes: int = 0
    dropped: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Memory:
    """Rows that are not on disk, in order."""

    rows: dict[int, Row] = field(default_factory=dict)
    bytes: int = 0

    def put(self, row: Row) -> None:
        self.rows[row.id] = row
        self.bytes += row.cost_bytes

    def take(self, row_id: int) -> bool:
        row = self.rows.pop(row_id, None)
        if row is not None:
            self.bytes -= row.cost_bytes
        return row is not None


class Outbox:
    """The queue of one board. `path` is the database; its reserve lies beside it."""

    def __init__(self, path: Path, *, max_bytes: int, reserve_bytes: int = _RESERVE_BYTES) -> None:
        self._path = path
        self._reserve = path.with_name(path.name + ".reserve")
        self._reserve_bytes = reserve_bytes
        self.max_bytes = max_bytes
        #: Why reports are not kept on disk now, or not all of them; None when they are.
        self.problem: str | None = None
        #: Set once when the queue of an earlier run had to be put aside.
        self.lost_queue: str | None = None
        self._memory = _Memory()
        self._settled: set[int] = set()
        self._acknowledged = Acknowledged()
        self._dropped_unwritten = 0
        self._tight = False
        self._rows = 0
        self._bytes = 0
        self._dropped = 0
        # Far behind every row of a database that can't be read now and may be later.
        self._next_id = time.time_ns()
        self._database: sqlite3.Connection | None = None
        self._open()

    @property
    def rows(self) -> int:
        """How many reports wait."""
        return max(0, self._rows - len(self._settled)) + len(self._memory.rows)

    @property
    def size_bytes(self) -> int:
        """What they count against the limit."""
        return self._bytes + self._memory.bytes

    @property
    def dropped(self) -> int:
        """How many reports were ever lost to the limit or the disk, over all boots."""
        return self._dropped + self._dropped_unwritten

    @property
    def uncommitted(self) -> bool:
        """Whether a commit would write a report (forgetting settled ones can wait for one that does)."""
        return bool(self._memory.rows)

    def holds_in_memory(self, row_id: int) -> bool:
        """Whether a kill would lose this report: it is neither on disk nor delivered."""
        return row_id in self._memory.rows

    @property
    def pressing(self) -> bool:
        """Whether so much waits in memory that a commit must not be put off."""
        return self._memory.bytes > min(self.max_bytes, MEMORY_LIMIT_BYTES) // 4

    @property
    def forgetting(self) -> bool:
        """Whether delivered rows are still on disk: harmless, they would only be sent once more after a kill."""
        return bool(self._settled or self._acknowledged)

    def add(self, *, boot: str, seq: int, channel: Channel, payload: bytes) -> int:
        """Queue one report in memory, for the next commit; return its id."""
        row = Row(id=self._next_id, boot=boot, seq=seq, channel=channel, payload=payload)
        self._next_id += 1
        self._memory.put(row)
        limit = min(self.max_bytes, MEMORY_LIMIT_BYTES)
        while self._memory.bytes > limit and len(self._memory.rows) > 1:
            self._memory.take(next(iter(self._memory.rows)))
            self._dropped_unwritten += 1
        return row.id

    def after(self, row_id: int, *, limit: int) -> list[Row]:
        """Return up to `limit` waiting rows behind `row_id`, oldest first."""
        found: list[Row] = []
        while len(found) < limit:
            page = self._read(row_id, limit)
            found.extend(row for row in page if not self._gone(row))
            if len(page) < limit:
                break
            row_id = page[-1].id
        found.extend(row for row in self._memory.rows.values() if row.id > row_id)
        return found[:limit]

    def settle(self, row_ids: Iterable[int]) -> None:
        """Forget rows that were delivered; what is unknown is ignored."""
        for row_id in row_ids:
            if not self._memory.take(row_id):
                self._settled.add(row_id)

    def drop(self, row_ids: Iterable[int]) -> None:
        """Give rows up that can't be delivered, and count them."""
        gone = tuple(row_ids)
        self.settle(gone)
        self._dropped_unwritten += len(gone)

    def acknowledge(self, boot: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Forget what a collector stored: the rows of `boot` whose seq is in one of the ranges (first, last)."""
        stored = self._acknowledged.add(boot, ranges)
        for row in tuple(self._memory.rows.values()):
            if row.boot == boot and holds(stored, row.seq):
                self._memory.take(row.id)

    def plan(self) -> Plan:
        """Take a snapshot of what is to be written."""
        return Plan(
            insert=tuple(self._memory.rows.values()),
            delete=frozenset(self._settled),
            acknowledged=self._acknowledged.snapshot(),
            bytes_before=self._bytes,
            max_bytes=self.max_bytes,
            dropped_in_memory=self._dropped_unwritten,
        )

    def write(self, plan: Plan) -> Written:
        """Make the plan durable; the only step that is slow. Never raises because of the disk."""
        if self._database is None:
            self._open()
        done = Written()
        for piece in _pieces(plan.insert):
            # Deletes and counts go with the first piece; a small transaction needs little room in the WAL.
            step = (
                dataclasses.replace(
                    plan,
                    insert=piece,
                    delete=frozenset(),
                    acknowledged={},
                    dropped_in_memory=0,
                    bytes_before=plan.bytes_before + done.bytes,
                )
                if done.begun
                else dataclasses.replace(plan, insert=piece)
            )
            written = self._write_piece(step)
            if written.problem is not None:
                return dataclasses.replace(done, problem=written.problem)
            done = Written(
                begun=True,
                inserted=done.inserted + len(piece),
                rows=done.rows + written.rows,
                bytes=done.bytes + written.bytes,
                dropped=done.dropped + written.dropped,
            )
        self._keep_reserve()
        return done

    def _write_piece(self, step: Plan) -> Written:
        written = self._try_to_write(step)
        if written.problem is None or _FULL not in written.problem:
            return written
        # The reserve makes room to empty the WAL; that is often all it takes. From now on the database must not grow:
        # a WAL with pages behind the end of a file that can't grow could never be emptied again.
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        self._empty_wal()
        self._limit_pages(grow=False)
        self._tight = True
        written = self._try_to_write(step)
        if written.problem is None or _FULL not in written.problem:
            return written
        # The newest reports are worth more than the oldest: take the room from those.
        room = 2 * sum(row.cost_bytes for row in step.insert)
        return self._try_to_write(dataclasses.replace(step, max_bytes=max(0, step.bytes_before - room)))

    def finish(self, plan: Plan, written: Written) -> None:
        """Draw the conclusions from a commit."""
        self.problem = written.problem or (_TIGHT if self._tight else None)
        if not written.begun:
            return
        for row in plan.insert[: written.inserted]:
            if not self._memory.take(row.id):
                # Settled while it was being written: it is on disk now and goes with the next commit.
                self._settled.add(row.id)
        self._settled -= plan.delete
        self._acknowledged.forget(plan.acknowledged)
        self._dropped_unwritten -= plan.dropped_in_memory
        self._rows += written.rows
        self._bytes += written.bytes
        self._dropped += written.dropped

    def commit(self) -> None:
        """Do the three steps at once."""
        plan = self.plan()
        if not plan.empty:
            self.finish(plan, self.write(plan))

    def close(self) -> None:
        """Commit and close; the outbox can't be used afterwards."""
        self.commit()
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _gone(self, row: Row) -> bool:
        return row.id in self._settled or self._acknowledged.holds(row.boot, row.seq)

    def _read(self, row_id: int, limit: int) -> list[Row]:
        if self._database is None:
            return []
        query = "SELECT id, boot, seq, channel, payload FROM rows WHERE id > ? ORDER BY id LIMIT ?"
        try:
            records = self._database.execute(query, (row_id, limit)).fetchall()
        except sqlite3.Error as error:
            self.problem = f"the outbox can't be read: {error}"
            return []
        return [Row(id=i, boot=b, seq=s, channel=c, payload=p) for i, b, s, c, p in records]

    def _try_to_write(self, plan: Plan) -> Written:
        database = self._database
        if database is None:
            return Written(problem=self.problem or "the outbox can't be opened")
        try:
            with database:
                database.execute("BEGIN IMMEDIATE")
                return _carry_out(database, plan)
        except sqlite3.Error as error:
            return Written(problem=f"reports can't be kept on disk: {error}")

    def _open(self) -> None:
        """Open what is there; a queue that is damaged is put aside, never in the way."""
        try:
            self._connect()
        except sqlite3.OperationalError as error:
            # Locked, read-only or full: it may work later, and the rows in it are still good.
            self._disconnect()
            self.problem = f"the outbox can't be opened: {error}"
        except sqlite3.DatabaseError as error:
            self._disconnect()
            self._put_aside(error)
            try:
                self._connect()
            except sqlite3.Error as second:
                self._disconnect()
                self.problem = f"the outbox can't be opened: {second}"

    def _connect(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1.0)
        self._database = database
        # Exclusive: no shared-memory file, which a full disk would turn into a SIGBUS; and one agent per home.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA wal_autocheckpoint = 128")
        # Small: the supervisor's memory is the model's loss.
        database.execute("PRAGMA cache_size = -512")
        self._limit_pages(grow=True)
        database.executescript(_SCHEMA)
        rows, size, last = database.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(id), 0) FROM rows"
        ).fetchone()
        found = database.execute("SELECT value FROM counters WHERE name = 'dropped'").fetchone()
        self._rows, self._bytes, self._dropped = rows, size + rows * ROW_OVERHEAD_BYTES, found[0] if found else 0
        self._next_id = last + 1 if not self._memory.rows else max(self._next_id, last + 1)
        self._path.chmod(0o600)
        self._keep_reserve()

    def _disconnect(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
        self._database = None

    def _put_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self._path.with_name(self._path.name + ".damaged")
        with contextlib.suppress(OSError):
            self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self.lost_queue = f"the outbox was damaged ({error}); it is kept as {aside.name} and a new one was begun"

    def _empty_wal(self) -> None:
        """Move what is in the WAL to where it belongs. The file keeps its size: its room is the next transaction's."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _limit_pages(self, *, grow: bool) -> None:
        # Rows of odd sizes waste pages; twice the limit is where the file ends whatever happens.
        pages = 2 * self.max_bytes // _PAGE_BYTES + 256 if grow else 1
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                # A number below the present size means the present size.
                self._database.execute(f"PRAGMA max_page_count = {pages}")

    def _free_bytes(self) -> int:
        try:
            room = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return room.f_bavail * room.f_frsize

    def _keep_reserve(self) -> None:
        """Hold some disk to give up in need. Its absence is no problem until then."""
        if self._reserve.exists() or self._free_bytes() < 4 * self._reserve_bytes:
            # On a disk that is nearly full it would be given up again at once.
            return
        with contextlib.suppress(OSError):
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._reserve_bytes)
                self._limit_pages(grow=True)
                self._tight = False
            except OSError:
                self._reserve.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _pieces(rows: tuple[Row, ...]) -> list[tuple[Row, ...]]:
    """Cut rows into transactions; there is always at least one, for what is to be deleted."""
    pieces: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        if size > _TRANSACTION_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(row)
        size += row.cost_bytes
    return [tuple(piece) for piece in pieces]


def _carry_out(database: sqlite3.Connection, plan: Plan) -> Written:
    """Do the plan inside an open transaction."""
    stored = {row_id for boot, ranges in plan.acknowledged.items() for row_id in _stored(database, boot, ranges)}
    rows, size = _delete(database, "id = ?", [(row_id,) for row_id in sorted(plan.delete | stored)])

    inserted = sum(row.cost_bytes for row in plan.insert)
    excess = plan.bytes_before - size + inserted - plan.max_bytes
    oldest, oldest_size = _delete(database, "id <= ?", [(_end_of_oldest(database, excess),)]) if excess > 0 else (0, 0)
    rows, size = rows + oldest, size + oldest_size

    database.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
        [(row.id, row.boot, row.seq, row.channel, row.payload) for row in plan.insert],
    )
    dropped = plan.dropped_in_memory + oldest
    if dropped:
        database.execute(
            "INSERT INTO counters VALUES ('dropped', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (dropped,),
        )
    return Written(rows=len(plan.insert) - rows, bytes=inserted - size, dropped=dropped)


def _stored(database: sqlite3.Connection, boot: str, ranges: Ranges) -> list[int]:
    """Return the ids of acknowledged rows: one walk over the queue, however many ranges there are."""
    query = "SELECT id, seq FROM rows WHERE boot = ? AND seq BETWEEN ? AND ?"
    found = database.execute(query, (boot, ranges[0][0], ranges[-1][1]))
    return [row_id for row_id, seq in found if holds(ranges, seq)]


def _delete(database: sqlite3.Connection, where: str, keys: list[tuple[str | int, ...]]) -> tuple[int, int]:
    """Delete rows; return how many went and what they counted."""
    rows = size = 0
    for key in keys:
        # `where` is one of this module's two constants.
        for (length,) in database.execute(f"DELETE FROM rows WHERE {where} RETURNING length(payload)", key):  # noqa: S608
            rows += 1
            size += length + ROW_OVERHEAD_BYTES
    return rows, size


def _end_of_oldest(database: sqlite3.Connection, excess_bytes: int) -> int:
    """Return the id of the last of the oldest rows that together count `excess_bytes`."""
    last = 0
    for row_id, length in database.execute("SELECT id, length(payload) FROM rows ORDER BY id"):
        last = row_id
        excess_bytes -= length + ROW_OVERHEAD_BYTES
        if excess_bytes <= 0:
            break
    return last
