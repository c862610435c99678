"""Queries that arrive by chance, and the search for the highest rate, with a clock that moves when the test says so."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

import pytest

from tflotilla.device.benchmark import arrivals
from tflotilla.device.benchmark.loops import Calls, Limits
from tflotilla.shared.statistics import upper_bound

if TYPE_CHECKING:
    from collections.abc import Iterator

_MS = 1_000_000
_NS = 1_000_000_000


class _Clock:
    """Serving takes as long as told; waiting and reading the time take none."""

    def __init__(self, service_ms: Iterator[float]) -> None:
        self.now_ns = 5
        self._service_ms = service_ms

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, until_ns: int) -> None:
        assert until_ns > self.now_ns
        self.now_ns = until_ns

    def _invoke(self) -> None:
        self.now_ns += int(next(self._service_ms) * _MS)

    @property
    def calls(self) -> Calls:
        return Calls(lambda _: None, self._invoke, lambda: None)

    def trial(
        self, qps: float, *, seed: int = 0, limits: Limits | None = None, bound_ms: float | None = None
    ) -> arrivals.Trial:
        return arrivals.run(
            self.calls,
            itertools.repeat(0),
            qps=qps,
            seed=seed,
            limits=limits or _limits(),
            bound_ns=None if bound_ms is None else int(bound_ms * _MS),
            wait=self.wait,
            clock=self,
        )


def _limits(min_runs: int = 662, min_s: float = 0.0, max_s: float = 600.0) -> Limits:
    return Limits(min_runs=min_runs, min_ns=int(min_s * _NS), max_ns=int(max_s * _NS))


def test_arrivals_are_a_poisson_process_of_the_seed() -> None:
    times = list(itertools.islice(arrivals.poisson(100, seed=3), 20_000))
    gaps = [later - first for first, later in itertools.pairwise(times)]
    in_window = [sum(start <= t < start + _NS for t in times[:10_000]) for start in range(0, 90 * _NS, _NS)]

    assert times == list(itertools.islice(arrivals.poisson(100, seed=3), 20_000))
    assert times != list(itertools.islice(arrivals.poisson(100, seed=4), 20_000))
    assert times == sorted(times)
    # An exponential distribution's mean and deviation are equal; a Poisson count's mean and variance.
    assert statistics.fmean(gaps) == pytest.approx(10 * _MS, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(10 * _MS, rel=0.05)
    assert statistics.variance(in_window) == pytest.approx(100, rel=0.35)


def test_the_same_seed_at_twice_the_rate_is_the_same_arrivals_twice_as_dense() -> None:
    slow = itertools.islice(arrivals.poisson(50, seed=1), 500)
    fast = itertools.islice(arrivals.poisson(100, seed=1), 500)

    assert all(abs(s - 2 * f) <= 2 for s, f in zip(slow, fast, strict=True))


def test_latency_counts_from_the_scheduled_arrival_and_queries_wait_in_one_queue() -> None:
    """Lindley's recursion says how long each query of a single queue waits."""
    clock = _Clock(itertools.repeat(4.0))

    record = clock.trial(200).record

    expected, free = [], 0
    for due in itertools.islice(arrivals.poisson(200, seed=0), 662):
        free = max(free, due) + 4 * _MS
        expected.append(free - due)
    assert list(record.queries) == expected
    assert list(record.invokes) == [4 * _MS] * 662
    assert record.timed_ns == 662 * 4 * _MS
    assert max(expected) > 3 * min(expected)


def test_the_mean_wait_is_that_of_an_m_d_1_queue() -> None:
    """Pollaczek and Khinchine: at 60 % load a constant service waits rho / (2 (1 - rho)) services on average."""
    record = _Clock(itertools.repeat(1.0)).trial(600, limits=_limits(min_runs=100_000)).record

    wait = statistics.fmean(record.queries) / _MS - 1
    assert wait == pytest.approx(0.6 / (2 * 0.4), rel=0.05)


def test_a_trial_takes_both_minima_as_far_as_the_time_allows() -> None:
    assert arrivals.planned(100, _limits(min_runs=662, min_s=1)) == 662
    assert arrivals.planned(1000, _limits(min_runs=662, min_s=10)) == 10_000
    assert arrivals.planned(10, _limits(min_runs=662, max_s=30)) == 300
    assert arrivals.planned(0.001, _limits(max_s=30)) == 1


def test_a_trial_ends_as_soon_as_the_bound_is_out_of_reach() -> None:
    found = _Clock(itertools.repeat(10.0)).trial(200, bound_ms=15)

    assert found.hopeless
    assert found.record.runs < 100


def test_without_a_bound_an_overloaded_queue_is_measured_until_the_time_is_over() -> None:
    found = _Clock(itertools.repeat(10.0)).trial(200, limits=_limits(min_runs=10_000, max_s=20))

    assert not found.hopeless
    assert found.record.elapsed_ns == pytest.approx(20 * _NS, rel=0.01)
    assert max(found.record.queries) > 5 * _NS


@pytest.mark.parametrize("capacity", [3.0, 40.0, 1000.0, 50_000.0])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.93])
def test_the_search_ends_at_the_highest_rate_that_keeps_the_bound(capacity: float, share: float) -> None:
    tried = []

    def keeps(qps: float) -> bool:
        tried.append(qps)
        return qps <= share * capacity

    best = arrivals.search(int(_NS / capacity), _limits(max_s=100_000), keeps)

    assert best is not None
    assert best in tried
    assert share * capacity - arrivals.PRECISION * capacity <= best <= share * capacity
    assert len(tried) <= arrivals.MAX_TRIALS


def test_the_search_gives_up_where_no_rate_keeps_the_bound() -> None:
    tried = []

    def keeps(qps: float) -> bool:
        tried.append(qps)
        return False

    assert arrivals.search(10 * _MS, _limits(max_s=60), keeps) is None
    # The lowest rate that could still be judged was among them.
    assert min(tried) == pytest.approx(1.05 * 662 / 60)
    assert len(tried) <= arrivals.MAX_TRIALS


def test_a_board_too_slow_for_a_p99_in_the_time_is_tried_once() -> None:
    tried = []

    def keeps(qps: float) -> bool:
        tried.append(qps)
        return True

    arrivals.search(_NS, _limits(max_s=30), keeps)

    assert tried == [0.5]


def test_search_and_trials_together_find_what_queueing_theory_says() -> None:
    """M/D/1: P(wait > 4 services) is 1 % at 56 % load: c e^(-4 θ), 0.56 (e^θ - 1) = θ, c = 0.44 / (0.56 e^θ - 1)."""
    clock = _Clock(itertools.repeat(2.0))
    bound_ms = 10.0
    limits = arrivals.long_enough(_limits(min_runs=20_000), int(bound_ms * _MS))

    def keeps(qps: float) -> bool:
        found = clock.trial(qps, limits=limits, bound_ms=bound_ms)
        bound = upper_bound(sorted(found.record.queries), 99)
        return not found.hopeless and bound is not None and bound <= bound_ms * _MS

    best = arrivals.search(2 * _MS, limits, keeps)

    assert best is not None
    assert best == pytest.approx(0.55 * 500, rel=0.05)


def test_a_rate_barely_too_high_is_found_out() -> None:
    limits = arrivals.long_enough(_limits(min_runs=662), 5 * _MS)

    assert limits.min_ns == 250 * _MS
    assert arrivals.long_enough(_limits(max_s=0.1), 5 * _MS).min_ns == 100 * _MS
