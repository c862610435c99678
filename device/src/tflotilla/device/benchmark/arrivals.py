"""MLPerf's Server: queries arrive at random, and wait in one queue for whoever is before them.

Arrivals are a Poisson process of a fixed seed; a latency counts from the scheduled arrival, so that a late start is the
board's fault and not forgotten. The same seed gives the same arrivals, only denser at a higher rate, which makes trials
comparable. `Search` is pure: it names rates and hears what became of them.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tflotilla.device.benchmark.loops import KEPT, NS, Record
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.device.benchmark.loops import Between, Calls, Clock, Limits, Wait

#: A search ends when no rate is left that differs by more than that share of what the board could do at best.
PRECISION = 0.02
MAX_TRIALS = 12
#: Rates from there on are not tried: nobody serves faster than the model runs, give or take how well that is known.
_ABOVE = 1.2
_PERCENT = 99.0
#: The board is looked at while the queue is empty for so long.
_IDLE_NS = 5_000_000


class Trial(NamedTuple):
    """What one rate gave; the record's queries are latencies from the scheduled arrival."""

    record: Record
    #: Ended early, because the bound could not be kept any more.
    hopeless: bool


def poisson(qps: float, seed: int) -> Iterator[int]:
    """Return the nanoseconds from the beginning at which queries arrive, without end.

    Gaps are exponential by inversion of `random.Random`'s uniform numbers: -ln(1 - u) / qps.
    """
    generator = random.Random(seed)  # noqa: S311 - a benchmark's, not a secret's
    at = 0.0
    while True:
        at -= math.log1p(-generator.random()) / qps
        yield int(at * NS)


def long_enough(limits: Limits, bound_ns: int) -> Limits:
    """Return limits under which a rate that is too high by `PRECISION` is found out, as far as the time allows.

    Its queue grows by that share of the time that passes; only when it has grown to the bound the rate shows.
    """
    return replace(limits, min_ns=min(limits.max_ns, max(limits.min_ns, int(bound_ns / PRECISION))))


def planned(qps: float, limits: Limits) -> int:
    """Return how many queries a trial of that rate takes: both minima, as far as the time allows, at least one."""
    wanted = max(limits.min_runs, math.ceil(qps * limits.min_ns / NS))
    return max(1, min(wanted, int(qps * limits.max_ns / NS), KEPT))


def run(
    calls: Calls,
    inputs: Iterator[Any],
    *,
    qps: float,
    seed: int,
    limits: Limits,
    bound_ns: int | None,
    wait: Wait,
    between: Between = lambda _: None,
    clock: Clock = time.perf_counter_ns,
) -> Trial:
    """Serve the queries of one rate.

    Args:
        calls: what a query is made of.
        inputs: an endless rotation, as `calls.put` takes them.
        qps: arrivals per second.
        seed: of the arrivals.
        limits: how many queries, see `planned`; `max_ns` ends a queue that only grows.
        bound_ns: when more than 1 % are slower, the trial ends; None serves them all.
        wait: until the clock shows so much.
        between: called while nobody waits.
        clock: nanoseconds.

    """
    put, invoke, take = calls
    record = Record()
    count = planned(qps, limits)
    over = 0
    allowed = count if bound_ns is None else int(count * (1 - _PERCENT / 100))
    bound = bound_ns or 0
    begin = clock()
    for offset, tensor in zip(itertools.islice(poisson(qps, seed), count), inputs):  # noqa: B905 - the rotation is endless
        due = begin + offset
        now = clock()
        if now < due:
            if due - now > _IDLE_NS:
                between(now)
            wait(due)
            record.waited_ns += clock() - now
        start = clock()
        put(tensor)
        ready = clock()
        invoke()
        done = clock()
        take()
        end = clock()
        record.queries.append(end - due)
        record.invokes.append(done - ready)
        record.timed_ns += end - start
        record.runs += 1
        over += end - due > bound
        if over > allowed or end - begin > limits.max_ns:
            break
    record.elapsed_ns = clock() - begin
    between(clock())
    return Trial(record, over > allowed)


class Search:
    """Finds the highest rate that keeps a bound: asks for a rate, is told, asks for the next.

    Bisects between nothing and a little more than the board can do. Rates that give too few runs for a p99 within the
    time are not tried: what they gave could not be judged.
    """

    def __init__(self, service_ns: int, limits: Limits) -> None:
        """Take what one query takes without waiting, and the limits of a trial."""
        self._capacity = NS / max(1, service_ns)
        self._least = 1.05 * minimum_runs(_PERCENT) * NS / max(1, limits.max_ns)
        self._high = _ABOVE * self._capacity
        self._low = 0.0
        self._trials = 0
        self._floor_tried = False

    @property
    def best(self) -> float | None:
        """The highest rate that kept the bound, None when none did."""
        return self._low or None

    def next_rate(self) -> float | None:
        """Return the rate to try, None when the search is over."""
        if self._trials >= MAX_TRIALS or self._high - self._low <= PRECISION * self._capacity:
            return None
        if self._low == 0 and self._floor_tried:
            return None
        if self._least > self._high:
            # No rate that the board could keep gives enough runs in the time: one trial shows it.
            return None if self._trials else self._capacity / 2
        middle = (self._low + self._high) / 2
        return max(middle, self._least)

    def tell(self, qps: float, *, kept: bool) -> None:
        """Hear what became of a rate."""
        self._trials += 1
        self._floor_tried = self._floor_tried or qps <= self._least
        if kept:
            self._low = max(self._low, qps)
            self._high = max(self._high, qps)
        else:
            self._high = min(self._high, qps)


def search(service_ns: int, limits: Limits, keeps: Callable[[float], bool]) -> float | None:
    """Return the highest rate for which `keeps` says yes, None when there is none."""
    state = Search(service_ns, limits)
    while (qps := state.next_rate()) is not None:
        state.tell(qps, kept=keeps(qps))
    return state.best
