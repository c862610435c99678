"""What is said of latencies: closed forms, numpy's and scipy's figures, the coverage of bounds, and drift.

scipy and numpy are the judges, never the judged: `shared.statistics` needs neither.
"""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.shared import statistics
from tflotilla.shared.statistics import (
    PERCENTILES,
    distribution,
    drift,
    lower_bound,
    minimum_runs,
    percentile,
    shortage,
    upper_bound,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SAMPLES = 10_000
stats = pytest.importorskip("scipy.stats")


def _some_latencies(rng: np.random.Generator) -> list[int]:
    count = int(rng.integers(1, 200))
    kinds: tuple[NDArray[np.float64], ...] = (
        rng.lognormal(13, 1, count),
        rng.uniform(1, 1e6, count),
        rng.integers(1, 4, count).astype(np.float64),
        (1 + rng.pareto(1.5, count)) * 1e5,
        rng.normal(1e12, 10, count),
    )
    return [int(value) for value in kinds[int(rng.integers(len(kinds)))]]


def test_ten_thousand_random_samples_have_the_figures_that_numpy_gives_them() -> None:
    rng = np.random.default_rng(4)
    for _ in range(SAMPLES):
        values = _some_latencies(rng)
        array = np.array(values, dtype=np.int64)
        found = distribution(values)
        ranks = np.percentile(array, [50.0, *PERCENTILES], method="inverted_cdf")

        assert (len(values), array.min(), array.max(), ranks[0]) == (
            found.count,
            found.min_ns,
            found.max_ns,
            found.median_ns,
        )
        assert math.isclose(found.mean_ns, array.mean(), rel_tol=1e-12)
        # numpy's own rounding shows where the mean is a million million and the deviation ten.
        deviation = float(np.std(array - array.min(), ddof=1)) if len(values) > 1 else 0.0
        assert math.isclose(found.std_ns, deviation, rel_tol=1e-9, abs_tol=1e-9)
        assert np.percentile(np.abs(array - found.median_ns), 50, method="inverted_cdf") == found.mad_ns
        for figure, expected in zip(found.percentiles, ranks[1:], strict=True):
            supported = len(values) >= figure.runs_needed
            assert figure.value_ns == (expected if supported else None)
            assert (figure.bound_ns is not None) == supported


def test_closed_forms() -> None:
    found = distribution(range(1, 1001))

    assert found.mean_ns == 500.5
    assert found.std_ns == pytest.approx(math.sqrt(1000 * 1001 / 12), rel=1e-15)
    assert (found.median_ns, found.mad_ns, found.min_ns, found.max_ns) == (500, 250, 1, 1000)
    assert [figure.value_ns for figure in found.percentiles] == [50, 500, 900, 950, 990, None]


def test_one_run_has_a_median_and_no_deviation_and_no_percentile() -> None:
    found = distribution([7])

    assert (found.median_ns, found.std_ns, found.mad_ns) == (7, 0.0, 0)
    assert {(figure.value_ns, figure.bound_ns) for figure in found.percentiles} == {(None, None)}


def test_a_small_spread_of_large_numbers_is_not_lost_in_rounding() -> None:
    huge = 10**17
    found = distribution([huge, huge + 1, huge + 2])

    assert found.std_ns == 1.0


def test_nothing_can_not_be_described() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        distribution([])


@pytest.mark.parametrize("percent", [50.0, 90.0, 95.0, 99.0, 99.9])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 0.9999])
def test_the_bound_has_the_rank_that_the_binomial_gives_it(percent: float, confidence: float) -> None:
    least = minimum_runs(percent, confidence)
    for runs in (least, least + 1, 2 * least, 3 * least + 7, 20 * least, 100_000):
        bound = upper_bound(range(runs), percent, confidence)
        assert bound is not None
        beyond = runs - 1 - bound
        tail = 1 - percent / 100

        assert beyond >= 1
        assert stats.binom.cdf(beyond, runs, tail) <= (1 - confidence) * (1 + 1e-9)
        assert stats.binom.cdf(beyond + 1, runs, tail) > 1 - confidence


@pytest.mark.parametrize("percent", [1.0, 5.0, 10.0, 50.0])
def test_the_bound_from_below_mirrors_the_one_from_above(percent: float) -> None:
    for runs in (5, 100, 662, 1000, 12_345):
        above = upper_bound(range(runs), 100 - percent)

        assert lower_bound(range(runs), percent) == (None if above is None else runs - 1 - above)


def test_one_run_less_than_needed_has_no_bound_and_as_many_have_the_second_slowest() -> None:
    for percent, runs in ((50, 11), (90, 64), (95, 130), (99, 662)):
        assert upper_bound(range(runs - 1), percent) is None
        assert upper_bound(range(runs), percent) == runs - 2


def test_ten_million_runs_have_a_bound_too() -> None:
    """Its rank is scipy's; terms that are too small for a float must not be summed one by one."""
    assert upper_bound(range(10_000_000), 50) == 10_000_000 - 1 - 4_996_321


@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0])
def test_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        upper_bound(range(1000), 90, confidence)


_DRAWS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]], Callable[[float], float]]] = {
    "exponential": (lambda rng, shape: rng.exponential(1, shape), lambda p: -math.log1p(-p)),
    "normal": (lambda rng, shape: rng.normal(5, 1, shape), lambda p: float(stats.norm.ppf(p, 5, 1))),
    "Pareto without a variance": (lambda rng, shape: rng.pareto(1.1, shape), lambda p: (1 - p) ** (-1 / 1.1) - 1),
    "ties": (lambda rng, shape: rng.integers(1, 21, shape), lambda p: math.ceil(round(p * 20, 9))),
    "two modes": (
        lambda rng, shape: np.where(rng.random(shape) < 0.95, rng.random(shape), 10 + rng.random(shape)),
        lambda p: p / 0.95 if p <= 0.95 else 10 + (p - 0.95) / 0.05,
    ),
}


@pytest.mark.parametrize("kind", _DRAWS)
@pytest.mark.parametrize(("percent", "runs"), [(50, 11), (50, 300), (90, 64), (95, 500), (99, 662), (99, 1500)])
def test_bounds_keep_their_promise_in_ninety_nine_runs_of_a_hundred(kind: str, percent: int, runs: int) -> None:
    """99 % claimed, at least 98.5 % seen: 4,000 seeded benchmarks, whose true percentile is known."""
    draw, truth = _DRAWS[kind]
    samples = np.sort(draw(np.random.default_rng(percent * runs), (4000, runs)), axis=1)
    rank = upper_bound(range(runs), percent)
    opposite = lower_bound(range(runs), 100 - percent)
    assert rank is not None
    assert opposite is not None

    assert np.mean(samples[:, rank] >= truth(percent / 100) - 1e-12) >= 0.985
    assert np.mean(samples[:, opposite] <= truth(1 - percent / 100) + 1e-12) >= 0.985


def test_the_shortage_is_said_with_what_is_there_and_what_is_needed() -> None:
    latency = distribution(range(1, 121))

    assert (
        shortage(latency)
        == "not enough runs for p5 (120 of 130), p95 (120 of 130), p99 (120 of 662), p99.9 (120 of 6636)"
    )
    assert shortage(dataclasses.replace(latency, percentiles=latency.percentiles[1:3])) is None


def test_a_bound_is_on_the_far_side_of_its_percentile() -> None:
    rng = random.Random(8)  # noqa: S311 - a test wants the same numbers each time
    for _ in range(50):
        for figure in distribution([rng.randint(1, 10**6) for _ in range(rng.randint(700, 9000))]).percentiles:
            if figure.value_ns is None or figure.bound_ns is None:
                continue
            if figure.percent < 50:
                assert figure.bound_ns <= figure.value_ns
            else:
                assert figure.bound_ns >= figure.value_ns


def _noise(count: int, seed: int) -> list[float]:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    return [rng.gauss(0, 1) for _ in range(count)]


def test_a_ramp_drifts_by_what_it_rises() -> None:
    found = drift([1_000_000 + 100 * n for n in range(1000)])

    assert found.drifting
    assert found.change == pytest.approx(100_000 / 1_050_000, rel=0.01)
    assert found.p_value < 1e-9


def test_a_run_that_gets_faster_drifts_downwards() -> None:
    assert drift([2_000_000 - 500 * n + int(1e4 * z) for n, z in enumerate(_noise(900, 1))]).change < -0.2


def test_throttling_in_the_middle_of_a_run_is_a_drift() -> None:
    noise = _noise(2000, 2)
    found = drift([int((5e6 if n < 1000 else 8e6) * (1 + z / 100)) for n, z in enumerate(noise)])

    assert found.drifting
    assert found.change > 0.2


def test_noise_without_a_trend_seldom_drifts() -> None:
    """At p < 0.01 and a change of 2 %: of 300 steady runs with a few per cent of noise hardly any may be accused."""
    accused = [drift([int(1e6 * (1 + z / 20)) for z in _noise(200, seed)]).drifting for seed in range(300)]

    assert sum(accused) <= 6


def test_one_slow_run_is_no_drift() -> None:
    assert not drift([1_000_000] * 500 + [90_000_000] + [1_000_000] * 499).drifting


def test_a_change_that_is_not_worth_a_word_does_not_drift() -> None:
    found = drift([1_000_000 + n for n in range(10_000)])

    assert found.p_value < 0.001
    assert not found.drifting


def test_nothing_is_told_from_a_few_runs_or_from_equal_ones() -> None:
    for values in ([], [5], list(range(1, 10)), [7] * 1000, [0] * 50):
        found = drift(values)

        assert (found.change, found.p_value, found.drifting) == (0.0, 1.0, False)


def test_the_test_of_trend_agrees_with_kendalls() -> None:
    """Without ties Mann and Kendall's score is Kendall's tau of values against time."""
    rng = random.Random(5)  # noqa: S311 - a test wants the same numbers each time
    for _ in range(200):
        values = rng.sample(range(10**6), 30)
        score = stats.kendalltau(range(30), values).statistic * 30 * 29 / 2
        deviation = math.sqrt(30 * 29 * 65 / 18)
        expected = 2 * stats.norm.sf((abs(score) - 1) / deviation) if round(score) else 1.0

        assert statistics._mann_kendall(values) == pytest.approx(expected, rel=1e-9)


def test_percentiles_of_a_distribution_are_the_nearest_ranks() -> None:
    values = sorted(random.Random(6).choices(range(10**6), k=7000))  # noqa: S311 - the same numbers each time

    assert [figure.value_ns for figure in distribution(values).percentiles] == [
        percentile(values, percent) for percent in PERCENTILES
    ]
