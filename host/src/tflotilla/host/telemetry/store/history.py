"""Asking a store: sums over any span, grouped; gaps; and the messages themselves.

    answer = history.ask(store, Question(since=…, until=…, by=("version", "hour")))
    for group in answer.groups:
        group.key, group.sums.percentile("total", 99)

Rules it keeps: an answer is of one moment; everything that was stored counts once, summed up already or not; the
coarsest sums that fit are read, and where finer ones were forgotten, the span is widened to what is left, which the
answer says. Percentiles come from added-up sketches. Days and hours are UTC's. It makes no store that isn't there.
What it does NOT do: print, or write files.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sql

from tflotilla.host.telemetry.store import folding, schema
from tflotilla.host.telemetry.store.numbers import Numbers
from tflotilla.host.telemetry.store.sums import Sums
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.folding import Row

#: `model` is the name, `version` name and version, `bundle` the digest.
By = Literal["board", "model", "version", "bundle", "minute", "hour", "day"]
BYS: tuple[By, ...] = get_args(By)
Table = Literal["metrics", "predictions", "reports"]
NO_BUNDLE = "(none)"
_SPANS: Mapping[str, int] = {"minute": 60, "hour": 3600, "day": 86400}
#: Longer ones are answered from hours in their middle, and from days.
_FROM_HOURS_S, _FROM_DAYS_S = 6 * 3600, 14 * 86400
_MOST_NAMED = 5000
_FETCHED_ROWS = 2000
_SHORT_DIGEST = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which reports (Unix seconds; `until` is not in it), of which boards (None is all), and how to group them."""

    since: float
    until: float
    boards: frozenset[str] | None = None
    by: tuple[By, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The sums of one group; its key says what `by` asked for, in that order."""

    key: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Groups in order of their keys, and which span they are really of."""

    since: float
    until: float
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What of one boot of a board came: exactly."""

    board: str
    boot: str
    first: int
    last: int
    received: int
    missing: int
    duplicates: int
    #: Unix seconds, by the collector's clock.
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One message as it was stored."""

    board: str
    boot: str
    seq: int
    channel: str
    at: float
    #: When it counts, see `placing`.
    time: float
    bundle: str | None
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A span that one level of sums answers."""

    level: int
    start: int
    end: int


def ask(store: DatabaseStore, question: Question) -> Answer:
    """Return the sums of a span.

    Raises:
        InputError: nothing was ever stored there.
        UnavailableError: the store can't be read just now.

    """
    with _reading(store) as connection:
        forgotten = {
            row.source: int(row.forgotten)
            for row in connection.execute(sql.select(schema.WATERMARKS.c.source, schema.WATERMARKS.c.forgotten))
        }
        pieces = planned(question, minutes_from=forgotten["minutes"], hours_from=forgotten["hours"])
        boards = _names(connection, schema.BOARDS, schema.BOARDS.c.name)
        wanted = None if question.boards is None else {n for n, name in boards.items() if name in question.boards}
        keyed = _keys(question.by, boards, _bundles(connection))
        groups: dict[tuple[str, ...], Sums] = {}
        for source, row in _rows(connection, pieces, wanted):
            if wanted is not None and row[2] not in wanted:
                continue
            key = keyed(row)
            sums = groups.get(key)
            if sums is None:
                sums = groups[key] = Sums()
            folding.added((row,), source, sums)
    ordered = sorted((key, sums) for key, sums in groups.items() if sums.scalars.windows)
    return Answer(
        since=pieces[0].start if pieces else question.since,
        until=pieces[-1].end if pieces else question.until,
        groups=tuple(Group(key=key, sums=sums) for key, sums in ordered),
    )


def kept_from(store: DatabaseStore, span: Literal["minute", "hour", "day"]) -> int:
    """Return from when on sums of that span were not forgotten (Unix seconds). Raises InputError, UnavailableError."""
    marks = schema.WATERMARKS.c
    with _reading(store) as connection:
        return int(connection.execute(sql.select(marks.forgotten).where(marks.source == f"{span}s")).scalar_one())


def began(store: DatabaseStore) -> float | None:
    """Return from when on anything is there to sum up (Unix seconds). Raises InputError, UnavailableError."""
    starts = [schema.METRICS.c.time, *(parts.c.start for parts in (schema.MINUTES, schema.HOURS, schema.DAYS))]
    with _reading(store) as connection:
        found: list[float | None] = [connection.execute(sql.select(sql.func.min(each))).scalar() for each in starts]
    return min((each for each in found if each is not None), default=None)


def gaps(store: DatabaseStore, *, since: float, boards: Collection[str] | None = None) -> tuple[Gaps, ...]:
    """Return what came of each boot that was heard of since then. Raises InputError, UnavailableError."""
    boots = schema.BOOTS.c
    wanted = sql.select(
        schema.BOARDS.c.name, boots.boot, boots.ranges, boots.received, boots.duplicates, boots.first_at, boots.last_at
    )
    wanted = wanted.join_from(schema.BOOTS, schema.BOARDS, boots.board == schema.BOARDS.c.id)
    wanted = wanted.where(boots.last_at >= since).order_by(schema.BOARDS.c.name, boots.first_at, boots.id)
    found = []
    with _reading(store) as connection:
        for row in connection.execution_options(yield_per=_FETCHED_ROWS).execute(wanted):
            if boards is not None and row.name not in boards:
                continue
            numbers = Numbers.read(row.ranges, received=row.received, duplicates=row.duplicates)
            found.append(
                Gaps(
                    board=row.name,
                    boot=row.boot,
                    first=numbers.first or 0,
                    last=numbers.last or 0,
                    received=numbers.received,
                    missing=numbers.missing,
                    duplicates=numbers.duplicates,
                    first_at=row.first_at,
                    last_at=row.last_at,
                )
            )
    return tuple(found)


def messages(
    store: DatabaseStore,
    name: Table,
    *,
    since: float,
    until: float,
    boards: Collection[str] | None = None,
    channel: str | None = None,
) -> Iterator[Stored]:
    """Read stored messages in order of time, a few at a time. Raises InputError, UnavailableError."""
    table = schema.TABLES.tables[f"telemetry_{name}"].c
    wanted = sql.select(
        schema.BOARDS.c.name,
        schema.BOOTS.c.boot,
        table.seq,
        table.channel,
        table.at,
        table.time,
        table.bundle,
        table.payload,
    )
    wanted = wanted.join_from(table.id.table, schema.BOOTS, table.boot == schema.BOOTS.c.id)
    wanted = wanted.join(schema.BOARDS, schema.BOOTS.c.board == schema.BOARDS.c.id)
    wanted = wanted.where(table.time >= since, table.time < until).order_by(table.time, table.id)
    if channel is not None:
        wanted = wanted.where(table.channel == channel)
    if boards is not None and len(boards) <= _MOST_NAMED:
        wanted = wanted.where(schema.BOARDS.c.name.in_(sorted(boards)))
    with _reading(store) as connection:
        digests = _names(connection, schema.BUNDLES, schema.BUNDLES.c.digest)
        for row in connection.execution_options(yield_per=_FETCHED_ROWS).execute(wanted):
            if boards is None or row.name in boards:
                yield Stored(
                    board=row.name,
                    boot=row.boot,
                    seq=row.seq,
                    channel=row.channel,
                    at=row.at,
                    time=row.time,
                    bundle=digests.get(row.bundle),
                    payload=bytes(row.payload),
                )


def planned(question: Question, *, minutes_from: int = 0, hours_from: int = 0) -> tuple[Piece, ...]:
    """Cut a span into pieces that sums of minutes, hours and days answer; those begin where they weren't forgotten.

    Law: pieces touch, and together are the question's span, widened to whole minutes or to what is left.
    """
    length = question.until - question.since
    coarsest = 2 if length > _FROM_DAYS_S else 1 if length > _FROM_HOURS_S else 0
    finest_by = min((_SPANS[by] for by in question.by if by in _SPANS), default=86400)
    coarsest = min(coarsest, {60: 0, 3600: 1, 86400: 2}[finest_by])
    since, until = int(question.since // 60) * 60, -int(-question.until // 60) * 60
    return tuple(_settled(_cut(since, until, coarsest), minutes_from, hours_from))


def _cut(start: int, end: int, level: int) -> Iterator[Piece]:
    if start >= end:
        return
    span = folding.LEVELS[level].span_s
    first, last = -(-start // span) * span, end // span * span
    if level == 0 or first >= last:
        if level == 0:
            yield Piece(level=0, start=start, end=end)
        else:
            yield from _cut(start, end, level - 1)
        return
    yield from _cut(start, first, level - 1)
    yield Piece(level=level, start=first, end=last)
    yield from _cut(last, end, level - 1)


def _settled(pieces: Iterator[Piece], minutes_from: int, hours_from: int) -> Iterator[Piece]:
    """Move pieces to coarser sums where theirs were forgotten, without counting anything twice."""
    reached: int | None = None
    for piece in pieces:
        level, start, end = piece.level, piece.start, piece.end
        for finer, kept_from in ((0, minutes_from), (1, hours_from)):
            if level == finer and start < kept_from:
                level = finer + 1
                span = folding.LEVELS[level].span_s
                start, end = start // span * span, -(-end // span) * span
        start = start if reached is None else max(start, reached)
        if start < end:
            yield Piece(level=level, start=start, end=end)
            reached = end


def _rows(
    connection: sql.Connection, pieces: tuple[Piece, ...], boards: Collection[int] | None
) -> Iterator[tuple[str, Row]]:
    """Return the sums of all pieces, and what isn't summed up that far: each with the name of its level."""
    if not pieces:
        return
    start, end = pieces[0].start, pieces[-1].end
    tail = folding.rows_after("metrics", folding.watermark(connection, "metrics"))
    tail = tail.where(schema.METRICS.c.time >= start, schema.METRICS.c.time < end)
    yield from _fetched(connection, "metrics", tail)
    for piece in pieces:
        for number, level in enumerate(folding.LEVELS[: piece.level + 1]):
            name = level.target.name.removeprefix("telemetry_")
            after = 0 if number == piece.level else folding.watermark(connection, name)
            table = level.target.c
            wanted = folding.rows_after(name, after).where(table.start >= piece.start, table.start < piece.end)
            if boards is not None and len(boards) <= _MOST_NAMED:
                wanted = wanted.where(table.board.in_(sorted(boards)))
            yield from _fetched(connection, name, wanted)


def _fetched(connection: sql.Connection, source: str, wanted: sql.Select[Any]) -> Iterator[tuple[str, Row]]:
    # In whatever order they lie: they are added up.
    rows = connection.execution_options(yield_per=_FETCHED_ROWS).execute(wanted.order_by(None))
    for row in rows:
        yield source, (row[0], row[1], row[2], row[3], row[4])


def _keys(
    by: tuple[By, ...], boards: Mapping[int, str], bundles: Mapping[int, Any]
) -> Callable[[Row], tuple[str, ...]]:
    def word(by: By, row: Row) -> str:
        if by in _SPANS:
            return spoken(row[1] // _SPANS[by] * _SPANS[by])
        if by == "board":
            return boards.get(row[2], "?")
        bundle = bundles.get(row[3])
        if bundle is None:
            return NO_BUNDLE
        if by == "bundle":
            return str(bundle.digest)
        if bundle.name is None:
            # No board said what it is called.
            return str(bundle.digest)[:_SHORT_DIGEST]
        return str(bundle.name) if by == "model" else f"{bundle.name}-{bundle.version}"

    return lambda row: tuple(word(each, row) for each in by)


def spoken(time: float) -> str:
    """Return a time as people and machines read it: 2025-06-16T12:00:00Z."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> float:
    """Return what `spoken` wrote, to the second."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC).timestamp()


@contextlib.contextmanager
def _reading(store: DatabaseStore) -> Iterator[sql.Connection]:
    with store.reading() as connection:
        if connection is None:
            raise InputError(f"nothing was collected in {store.where} yet; `tflotilla collect` does that")
        yield connection


def _names(connection: sql.Connection, table: sql.Table, column: sql.Column[Any]) -> dict[int, str]:
    found = connection.execute(sql.select(table.c.id.label("number"), column.label("name")))
    return {int(row.number): str(row.name) for row in found}


def _bundles(connection: sql.Connection) -> dict[int, Any]:
    bundles = schema.BUNDLES.c
    found = connection.execute(sql.select(bundles.id, bundles.digest, bundles.name, bundles.version))
    return {int(row.id): row for row in found}
