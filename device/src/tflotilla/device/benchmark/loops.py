"""The timed loops: one query after the other, at once, at a rate or with a pause, until enough is known.

A query is timed from its tensors to its outputs copied out, the invoke inside it apart. Clock and waiting are given, so
that a test is the clock. Nothing stands in a loop but the calls and their stamps: the board is looked at between slices
of some tenths of a second. What it does NOT do: choose inputs, or judge.
"""

from __future__ import annotations

import itertools
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Clock = Callable[[], int]
    #: Waits until the clock shows so much.
    Wait = Callable[[int], None]
    #: Looks at the board; gets the time.
    Between = Callable[[int], None]

NS = 1_000_000_000
#: The board is looked at, and the end of the run, at least so often where runs are shorter than that.
SLICE_NS = NS // 5
#: So many runs of one slice at most, so that a record is thinned before it grows large.
_CHUNK = 1 << 16
#: A record of more is thinned: as Python's numbers these are 64 MiB.
KEPT = 1 << 21
_SPIN_NS = 150_000
#: A run that begins later than that after its time is late; waking up takes a part of it.
_LATE_NS = 200_000


class Calls(NamedTuple):
    """What one inference is made of: an input goes in, the runtime's own call, outputs come out."""

    put: Callable[[Any], object]
    invoke: Callable[[], object]
    take: Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to go on: both minima, never beyond the maximum, at least one query."""

    min_runs: int
    min_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When queries begin: each `period_ns` after the last one began, or `delay_ns` after it ended."""

    period_ns: int | None = None
    delay_ns: int = 0


@dataclass(slots=True, kw_only=True)
class Record:
    """What was timed, in nanoseconds and in order. Every `thinning`-th run stands in the arrays, `runs` counts all."""

    queries: array[int] = field(default_factory=lambda: array("q"))
    invokes: array[int] = field(default_factory=lambda: array("q"))
    runs: int = 0
    thinning: int = 1
    #: The timed part of all runs, and the whole from the first one's begin to the last one's end.
    timed_ns: int = 0
    elapsed_ns: int = 0
    #: Waiting on purpose, within `elapsed_ns`.
    waited_ns: int = 0
    late: int = 0


class Waiter:
    """Sleeps until a moment, and spins for its last part: a sleep alone comes late. Counts what the spinning took."""

    def __init__(self, clock: Clock = time.perf_counter_ns, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self.cpu_ns = 0

    def __call__(self, until_ns: int) -> None:
        """Return when the clock shows `until_ns`."""
        clock = self._clock
        begin = time.process_time_ns()
        rest = until_ns - clock()
        if rest > _SPIN_NS:
            self._sleep((rest - _SPIN_NS) / NS)
        while clock() < until_ns:
            pass
        self.cpu_ns += time.process_time_ns() - begin


def run(
    calls: Calls,
    inputs: Iterator[Any],
    limits: Limits,
    *,
    pace: Pace | None = None,
    invokes_per_query: int = 1,
    between: Between = lambda _: None,
    clock: Clock = time.perf_counter_ns,
    wait: Wait | None = None,
    kept: int = KEPT,
) -> Record:
    """Time queries until both minima are reached or the maximum is over.

    Args:
        calls: what a query is made of.
        inputs: an endless rotation, as `calls.put` takes them.
        limits: when to end.
        pace: when queries begin; None is one after the other.
        invokes_per_query: MultiStream: the inferences of one query, one after the other.
        between: called between slices, not while anything is timed.
        clock: nanoseconds.
        wait: until the clock shows so much; needed with a pace.
        kept: more runs than that are thinned evenly to at most so many.

    """
    record = Record()
    begin = now = clock()
    earliest, latest = begin + limits.min_ns, begin + limits.max_ns
    grid = _Grid(pace, record, begin, latest, clock, wait) if pace is not None and wait is not None else None
    while not record.runs or (now < latest and (now < earliest or record.runs < limits.min_runs)):
        until = min(now + SLICE_NS, latest if now >= earliest else min(earliest, latest))
        most = _CHUNK if now < earliest else max(1, min(_CHUNK, limits.min_runs - record.runs))
        queries, invokes = array("q"), array("q")
        if grid is not None or invokes_per_query > 1:
            _several(calls, inputs, queries, invokes, invokes_per_query, until, most, clock, grid)
        else:
            _plain(calls, inputs, queries, invokes, until, most, clock)
        _keep(record, queries, invokes, kept)
        now = clock()
        # Of what follows nothing belongs to the runs.
        record.elapsed_ns = now - begin
        between(now)
        now = clock()
    return record


def _plain(
    calls: Calls,
    inputs: Iterator[Any],
    queries: array[int],
    invokes: array[int],
    until: int,
    most: int,
    clock: Clock,
) -> None:
    put, invoke, take = calls
    add_query, add_invoke = queries.append, invokes.append
    for tensor in itertools.islice(inputs, most):
        start = clock()
        put(tensor)
        ready = clock()
        invoke()
        done = clock()
        take()
        end = clock()
        add_query(end - start)
        add_invoke(done - ready)
        if end >= until:
            return


def _several(
    calls: Calls,
    inputs: Iterator[Any],
    queries: array[int],
    invokes: array[int],
    each: int,
    until: int,
    most: int,
    clock: Clock,
    grid: _Grid | None,
) -> None:
    put, invoke, take = calls
    for _ in range(most):
        if grid is not None and not grid.wait():
            return
        start = clock()
        if grid is not None:
            grid.begins(start)
        for tensor in itertools.islice(inputs, each):
            put(tensor)
            ready = clock()
            invoke()
            invokes.append(clock() - ready)
            take()
        end = clock()
        queries.append(end - start)
        if end >= until:
            return


class _Grid:
    """When queries are due. It stands: after a late one the next follow at once until the time is caught up with."""

    def __init__(self, pace: Pace, record: Record, begin: int, latest: int, clock: Clock, wait: Wait) -> None:
        self._pace = pace
        self._record = record
        self._begin = begin
        self._latest = latest
        self._clock = clock
        self._wait = wait
        self._number = 0
        self._due = begin

    def wait(self) -> bool:
        """Wait until it is due; False when that is after the end."""
        now = self._clock()
        if self._pace.period_ns is not None:
            self._due = self._begin + self._number * self._pace.period_ns
        else:
            self._due = now + (self._pace.delay_ns if self._number else 0)
        until = min(self._due, self._latest) if self._number else self._due
        if now < until:
            self._wait(until)
            self._record.waited_ns += self._clock() - now
        return until == self._due

    def begins(self, start: int) -> None:
        """Count a query that begins, and whether it is late."""
        self._number += 1
        self._record.late += self._pace.period_ns is not None and start > self._due + _LATE_NS


def _keep(record: Record, queries: array[int], invokes: array[int], kept: int) -> None:
    if not queries:
        return
    record.timed_ns += sum(queries)
    each = len(invokes) // len(queries)
    first = -record.runs % record.thinning
    record.runs += len(queries)
    record.queries.extend(queries[first :: record.thinning])
    if each == 1:
        record.invokes.extend(invokes[first :: record.thinning])
    else:
        for query in range(first, len(queries), record.thinning):
            record.invokes.extend(invokes[query * each : (query + 1) * each])
    while len(record.queries) > kept:
        record.thinning *= 2
        record.queries = record.queries[::2]
        record.invokes = _every_second(record.invokes, each)


def _every_second(invokes: array[int], each: int) -> array[int]:
    if each == 1:
        return invokes[::2]
    thinned = array("q")
    for begin in range(0, len(invokes), 2 * each):
        thinned.extend(invokes[begin : begin + each])
    return thinned


def clock_cost_ns(clock: Clock = time.perf_counter_ns, *, reads: int = 2000) -> int:
    """Return what reading the clock twice takes: the median of many pairs."""
    taken = []
    for _ in range(reads):
        begin = clock()
        taken.append(clock() - begin)
    return 2 * sorted(taken)[reads // 2]
