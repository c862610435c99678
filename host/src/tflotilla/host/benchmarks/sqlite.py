"""The history of benchmarks: `.tflotilla/benchmarks.db` beside fleet.toml. The host's one door to SQLite.

Rules it keeps: a run is stored whole or not at all, under an id that no other has; names may be given again, and then
mean the newest; a database that is damaged or of a newer tflotilla is left as it is, and the error says so. Looking
into a history that does not exist makes none. What it does NOT do: compare, show, or forget.
"""

from __future__ import annotations

import contextlib
import difflib
import sqlite3
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks import results
from tflotilla.host.models.delivery import check_writable
from tflotilla.shared.contract.errors import ConflictError, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.host.benchmarks.results import Run

FILE = "benchmarks.db"
_VERSION = 1
#: Several commands may save at once, each in milliseconds.
_PATIENCE_S = 20.0
_LEAST_PREFIX = 4
_LONGEST_NAME = 80
_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, created REAL NOT NULL, name TEXT, tool TEXT NOT NULL, document BLOB NOT NULL
);
CREATE INDEX runs_by_name ON runs (name, created);
CREATE TABLE parts (
    run TEXT NOT NULL REFERENCES runs (id), position INTEGER NOT NULL, board TEXT NOT NULL, model TEXT NOT NULL,
    model_sha256 TEXT, cells INTEGER NOT NULL, PRIMARY KEY (run, position)
);
CREATE INDEX parts_by_board ON parts (board, model);
"""
#: Newest first; of two of one moment the one that was saved later.
_ORDER = "ORDER BY runs.created DESC, runs.rowid DESC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run of the history, without its figures."""

    id: str
    #: Unix seconds by the clock of the host that measured.
    created: float
    name: str | None
    tool: str
    boards: tuple[str, ...]
    models: tuple[str, ...]
    cells: int


def check_name(name: str | None) -> None:
    """Refuse names that could not be typed, or would be taken for a file. Raises UsageError."""
    if name is None:
        return
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise UsageError(
            f"a benchmark can't be called {name[:_LONGEST_NAME]!r}: 1 to {_LONGEST_NAME} visible characters"
        )
    if "/" in name or name.startswith("-") or name.lower().endswith(".json"):
        raise UsageError(f"a benchmark can't be called {name!r}: it looks like a file or an option")


class History:
    """The runs that were saved. Every method opens the file anew, so nothing is held between commands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, name: str | None) -> None:
        """Find out before minutes of work whether a run of that name can be kept. Makes nothing.

        Raises:
            UsageError: it can't be a name.
            InputError: the database can't be written.

        """
        check_name(name)
        check_writable(self.path)
        if self.path.exists() and (not self.path.is_file() or self.path.stat().st_size > 0):
            with self._open() as database:
                self._check(database)

    def save(self, run: Run) -> None:
        """Keep a run; the same run again changes nothing.

        Raises:
            ConflictError: another run has its id.
            InputError: the database can't be written.
            UsageError: its name can't be one.

        """
        check_name(run.name)
        document = zlib.compress(results.to_json(run))
        parts: list[tuple[str, str, str | None, int]] = [
            (part.board, part.model, None if part.identity is None else part.identity.model_sha256, len(part.cells))
            for part in run.boards
        ]
        parts += [("", each.model, None, 1) for each in run.foreign]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} can't be written: {error.strerror or error}") from error
        with self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")
            self._prepare(database)
            known = database.execute("SELECT document FROM runs WHERE id = ?", (run.id,)).fetchone()
            if known is not None:
                if self._run(run.id, known[0]) == run:
                    return
                raise ConflictError(f"{self.path} holds another benchmark with the id {run.id}; nothing was saved")
            database.execute(
                "INSERT INTO runs (id, created, name, tool, document) VALUES (?, ?, ?, ?, ?)",
                (run.id, run.created, run.name, run.tool, document),
            )
            database.executemany(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)",
                [(run.id, position, *part) for position, part in enumerate(parts)],
            )

    def find(self, reference: str) -> Run:
        """Return the run of that id (or the beginning of one), or the newest of that name.

        Raises:
            InputError: there is none, or the beginning of an id is that of several; names that are near are named.

        """
        if not self.path.exists():
            raise InputError(f"there is no benchmark {reference!r}: nothing was saved in {self.path} yet")
        with self._open() as database:
            self._check(database)
            row = database.execute(
                f"SELECT id, document FROM runs WHERE id = ? OR name = ? {_ORDER} LIMIT 1",  # noqa: S608 - a constant
                (reference, reference),
            ).fetchone()
            if row is None and len(reference) >= _LEAST_PREFIX:
                row = self._by_prefix(database, reference)
            if row is None:
                raise InputError(self._unknown(database, reference))
            return self._run(row[0], row[1])

    def entries(self, *, board: str | None = None, model: str | None = None, limit: int = 20) -> tuple[Entry, ...]:
        """Return what was saved, newest first; `model` is a title, a bundle's name, or the beginning of a SHA-256.

        Raises:
            InputError: the database can't be read.

        """
        if not self.path.exists():
            return ()
        matching = (
            "SELECT run FROM parts WHERE (:board IS NULL OR board = :board) AND (:model IS NULL OR model = :model"
        )
        matching += " OR substr(model, 1, length(:model) + 1) = :model || '-'"
        matching += " OR (length(:model) >= 8 AND substr(model_sha256, 1, length(:model)) = :model))"
        with self._open() as database:
            self._check(database)
            anything = board is None and model is None
            where = "" if anything else f"WHERE id IN ({matching})"
            values: dict[str, str | int | None] = {"limit": limit}
            if not anything:
                values |= {"board": board, "model": model}
            rows = database.execute(
                f"SELECT id, created, name, tool FROM runs {where} {_ORDER} LIMIT :limit",  # noqa: S608 - constants
                values,
            ).fetchall()
            return tuple(self._entry(database, row) for row in rows)

    def _entry(self, database: sqlite3.Connection, row: tuple[str, float, str | None, str]) -> Entry:
        parts = database.execute(
            "SELECT board, model, cells FROM parts WHERE run = ? ORDER BY position", (row[0],)
        ).fetchall()
        return Entry(
            id=row[0],
            created=row[1],
            name=row[2],
            tool=row[3],
            boards=tuple(dict.fromkeys(board for board, _, _ in parts if board)),
            models=tuple(dict.fromkeys(model for _, model, _ in parts if model)),
            cells=sum(cells for _, _, cells in parts),
        )

    def _by_prefix(self, database: sqlite3.Connection, prefix: str) -> tuple[str, bytes] | None:
        rows: list[tuple[str, bytes]] = database.execute(
            f"SELECT id, document FROM runs WHERE substr(id, 1, ?) = ? {_ORDER} LIMIT 2",  # noqa: S608 - a constant
            (len(prefix), prefix),
        ).fetchall()
        if len(rows) > 1:
            raise InputError(f"{prefix!r} begins the ids {rows[0][0]} and {rows[1][0]}; write more of the one you mean")
        return rows[0] if rows else None

    def _unknown(self, database: sqlite3.Connection, reference: str) -> str:
        names = [name for (name,) in database.execute("SELECT DISTINCT name FROM runs WHERE name IS NOT NULL")]
        near = difflib.get_close_matches(reference, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`tflotilla benchmark history` lists what was saved"
        return f"there is no file and no saved benchmark {reference!r}; {hint}"

    def _run(self, identifier: str, document: bytes) -> Run:
        try:
            data = zlib.decompress(document)
        except (zlib.error, TypeError) as error:
            raise InputError(f"{self.path}: the benchmark {identifier} is damaged ({error})") from error
        return results.from_json(data, f"{self.path}: {identifier}")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # Transactions are begun by hand: the schema's statements stand in the same one as the first run.
            database = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous = FULL")
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise InputError(f"{self.path} can't be used: {self._said(error)}") from error

    def _said(self, error: sqlite3.Error) -> str:
        # What the module itself raises has no code.
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"it is damaged, or no database ({error}); move it away to begin a new history"
        return str(error)

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make the tables in an empty file. Raises InputError for any other that is not ours."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")
        else:
            self._check(database)

    def _check(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise InputError(f"{self.path} was written by a newer tflotilla (version {version}); upgrade this one")
        if version < _VERSION:
            raise InputError(f"{self.path} is not a history of benchmarks; move it away to begin one")
