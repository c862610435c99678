"""The timed loops, with a clock that moves only when the test says so."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tflotilla.device.benchmark import loops
from tflotilla.device.benchmark.loops import Calls, Limits, Pace

if TYPE_CHECKING:
    from collections.abc import Callable

_MS = 1_000_000
_NS = 1_000_000_000


class _Clock:
    """Copying in and out takes 1 ms each, invoke what is told by the number of the run, reading the time nothing."""

    def __init__(self, invoke_ms: Callable[[int], float]) -> None:
        self.now_ns = 17
        self.fed: list[int] = []
        self.waits: list[int] = []
        self._invoke_ms = invoke_ms

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, until_ns: int) -> None:
        self.waits.append(until_ns - self.now_ns)
        self.now_ns = until_ns

    @property
    def calls(self) -> Calls:
        return Calls(self._put, self._invoke, self._take)

    def _put(self, tensor: int) -> None:
        self.fed.append(tensor)
        self.now_ns += _MS

    def _invoke(self) -> None:
        self.now_ns += int(self._invoke_ms(len(self.fed) - 1) * _MS)

    def _take(self) -> None:
        self.now_ns += _MS


def _limits(min_runs: int, min_s: float, max_s: float) -> Limits:
    return Limits(min_runs=min_runs, min_ns=int(min_s * _NS), max_ns=int(max_s * _NS))


@pytest.mark.parametrize("pace", [None, Pace(delay_ns=0)], ids=["plain", "paced"])
@pytest.mark.parametrize(
    ("query_ms", "min_runs", "min_s", "max_s", "expected"),
    [
        (5, 50, 1.0, 30.0, 200),
        (100, 50, 1.0, 30.0, 50),
        (1000, 50, 1.0, 30.0, 30),
        (60_000, 50, 1.0, 30.0, 1),
        (5, 1, 0.0, 30.0, 1),
        (5, 70, 0.0, 30.0, 70),
    ],
    ids=[
        "until the seconds are reached",
        "until the runs are",
        "never beyond the cap",
        "one at least",
        "one",
        "exactly",
    ],
)
def test_queries_are_timed_until_both_minima_or_the_cap(
    pace: Pace | None, query_ms: int, min_runs: int, min_s: float, max_s: float, expected: int
) -> None:
    clock = _Clock(lambda _: query_ms - 2)

    record = loops.run(
        clock.calls, itertools.repeat(0), _limits(min_runs, min_s, max_s), pace=pace, clock=clock, wait=clock.wait
    )

    assert list(record.queries) == [query_ms * _MS] * expected
    assert list(record.invokes) == [(query_ms - 2) * _MS] * expected
    assert record.runs == expected
    assert record.timed_ns == record.elapsed_ns == expected * query_ms * _MS


def test_inputs_rotate_in_order() -> None:
    clock = _Clock(lambda _: 1)

    loops.run(clock.calls, itertools.cycle([1, 2, 3]), _limits(7, 0, 10), clock=clock)

    assert clock.fed == [1, 2, 3, 1, 2, 3, 1]


def test_a_query_of_several_samples_is_timed_as_one() -> None:
    clock = _Clock(lambda number: number)

    record = loops.run(clock.calls, itertools.cycle([0]), _limits(3, 0, 10), invokes_per_query=4, clock=clock)

    assert list(record.invokes) == [number * _MS for number in range(12)]
    assert list(record.queries) == [(8 + sum(range(first, first + 4))) * _MS for first in (0, 4, 8)]
    assert record.runs == 3


def test_a_rate_waits_for_each_run_and_counts_those_that_begin_late() -> None:
    """Every 10 ms; the third takes 25 ms, so that three begin late until the time is caught up with."""
    clock = _Clock(lambda number: 23 if number == 2 else 2)

    record = loops.run(
        clock.calls,
        itertools.cycle([0]),
        _limits(7, 0, 10),
        pace=Pace(period_ns=10 * _MS),
        clock=clock,
        wait=clock.wait,
    )

    assert record.late == 3
    assert clock.waits == [6 * _MS, 6 * _MS, 3 * _MS]
    assert record.waited_ns == sum(clock.waits)
    assert list(record.queries) == [(25 if number == 2 else 4) * _MS for number in range(7)]


def test_a_delay_is_waited_between_runs_and_belongs_to_none() -> None:
    clock = _Clock(lambda _: 2)

    record = loops.run(
        clock.calls, itertools.cycle([0]), _limits(4, 0, 10), pace=Pace(delay_ns=3 * _MS), clock=clock, wait=clock.wait
    )

    assert clock.waits == [3 * _MS] * 3
    assert (record.timed_ns, record.waited_ns, record.late) == (16 * _MS, 9 * _MS, 0)


def test_a_pause_longer_than_the_time_ends_with_it() -> None:
    clock = _Clock(lambda _: 2)

    record = loops.run(
        clock.calls,
        itertools.cycle([0]),
        _limits(4, 0, 10),
        pace=Pace(period_ns=60 * _NS),
        clock=clock,
        wait=clock.wait,
    )

    assert (record.runs, record.late, record.elapsed_ns) == (1, 0, 10 * _NS)


def test_a_paced_query_may_be_of_several_samples() -> None:
    clock = _Clock(lambda _: 2)

    record = loops.run(
        clock.calls,
        itertools.cycle([0]),
        _limits(3, 0, 10),
        pace=Pace(delay_ns=3 * _MS),
        invokes_per_query=2,
        clock=clock,
        wait=clock.wait,
    )

    assert (list(record.queries), list(record.invokes)) == ([8 * _MS] * 3, [2 * _MS] * 6)


def test_the_board_is_looked_at_between_runs_several_times_a_second() -> None:
    clock = _Clock(lambda _: 1)
    looks: list[int] = []

    def look(now_ns: int) -> None:
        looks.append(now_ns)
        clock.now_ns += 50 * _MS

    record = loops.run(clock.calls, itertools.cycle([0]), _limits(1, 2.0, 10), between=look, clock=clock)

    gaps = [later - first for first, later in itertools.pairwise(looks)]
    assert len(looks) >= 5
    assert max(gaps) <= loops.SLICE_NS + 53 * _MS
    assert set(record.queries) == {3 * _MS}
    assert record.elapsed_ns - record.timed_ns == 50 * _MS * (len(looks) - 1)


@pytest.mark.parametrize("each", [1, 3])
def test_a_long_record_is_thinned_evenly_and_still_counts_all(each: int) -> None:
    clock = _Clock(lambda number: number // each)

    record = loops.run(
        clock.calls, itertools.cycle([0]), _limits(500, 0, 10_000), invokes_per_query=each, clock=clock, kept=60
    )

    assert record.runs == 500
    assert record.thinning == 16
    assert list(record.queries) == [each * (run + 2) * _MS for run in range(0, 500, 16)]
    assert list(record.invokes) == [run * _MS for run in range(0, 500, 16) for _ in range(each)]


def test_waiting_ends_at_the_moment_and_sleeps_for_most_of_it() -> None:
    now = [0]

    def clock() -> int:
        now[0] += 1000
        return now[0]

    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += int(seconds * _NS)

    waiter = loops.Waiter(clock, sleep)
    waiter(50 * _MS)
    waiter(40 * _MS)

    assert 50 * _MS <= now[0] < 50 * _MS + 10_000
    assert len(slept) == 1
    assert 0.045 < slept[0] < 0.05


def test_reading_the_clock_twice_costs_what_it_takes() -> None:
    ticks = itertools.count(0, 40)

    assert loops.clock_cost_ns(lambda: next(ticks)) == 80
