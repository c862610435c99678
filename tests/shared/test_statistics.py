"""Percentiles that were measured, runs that support them, labels that were counted."""

from __future__ import annotations

import math
import random

import pytest

from tflotilla.shared.contract.messages import LabelCount
from tflotilla.shared.statistics import LabelStatistics, minimum_runs, percentile, summarize


def test_percentiles_are_order_statistics_by_nearest_rank() -> None:
    hundred = list(range(1, 101))

    assert [percentile(hundred, p) for p in (1, 50, 90, 99, 99.5, 100)] == [1, 50, 90, 99, 100, 100]
    assert percentile([7], 0.1) == percentile([7], 99.9) == 7


def test_at_least_that_share_of_values_is_no_larger_than_a_percentile_and_none_smaller_would_do() -> None:
    rng = random.Random(3)  # noqa: S311 - a test wants the same numbers each time
    for _ in range(300):
        values = sorted(rng.randint(0, 50) for _ in range(rng.randint(1, 400)))
        percent = rng.choice([1, 5, 25, 50, 75, 90, 95, 99, 99.9])
        found = percentile(values, percent)
        below = sum(value <= found for value in values)
        strictly = sum(value < found for value in values)

        assert below * 100 >= percent * len(values) - 1e-6
        assert strictly * 100 < percent * len(values)


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_a_percentile_outside_of_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile([1], percent)


def test_a_summary_does_not_depend_on_the_order() -> None:
    values = list(range(1000, 0, -1))
    random.Random(1).shuffle(values)  # noqa: S311 - a test wants the same order each time
    summary = summarize(values)

    assert (summary.count, summary.mean_ns, summary.min_ns, summary.max_ns) == (1000, 500.5, 1, 1000)
    assert (summary.p50_ns, summary.p90_ns, summary.p99_ns) == (500, 900, 990)


def test_nothing_can_not_be_summarized() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        summarize([])


def test_early_stopping_asks_for_the_runs_that_loadgen_asks_for() -> None:
    assert [minimum_runs(p) for p in (50, 90, 95, 99)] == [11, 64, 130, 662]


@pytest.mark.parametrize("percent", [1, 50, 80, 90, 97, 99, 99.9])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_minimum_is_enough_and_one_run_less_is_not(percent: float, confidence: float) -> None:
    def at_most_one_above(runs: int) -> float:
        p = percent / 100
        return sum(math.comb(runs, k) * (1 - p) ** k * p ** (runs - k) for k in (0, 1))

    least = minimum_runs(percent, confidence)

    assert at_most_one_above(least) <= 1 - confidence
    assert least == 2 or at_most_one_above(least - 1) > 1 - confidence


@pytest.mark.parametrize(("percent", "confidence"), [(0, 0.99), (100, 0.99), (50, 0), (50, 1)])
def test_certainty_can_not_be_had(percent: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="no number of runs"):
        minimum_runs(percent, confidence)


def test_labels_are_counted_most_frequent_first_and_then_by_name() -> None:
    statistics = LabelStatistics()
    for label, score in [("cat", 0.5), ("dog", 1.0), ("cat", 1.0), ("ant", 0.25)]:
        statistics.add(label, score)

    assert statistics.take() == (
        LabelCount(label="cat", count=2, mean_score=0.75, std_score=0.25),
        LabelCount(label="ant", count=1, mean_score=0.25, std_score=0.0),
        LabelCount(label="dog", count=1, mean_score=1.0, std_score=0.0),
    )


def test_taking_a_window_begins_the_next() -> None:
    statistics = LabelStatistics()
    statistics.add("cat", 1.0)
    statistics.take()

    assert statistics.take() == ()
