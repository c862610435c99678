"""Tests and intervals hold what they promise on series whose truth is known, remembering ones among them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.host.benchmarks import series
from tflotilla.host.benchmarks import significance


def test_equal_series_and_seeds_give_equal_answers() -> None:
    base, new = series.independent(700, 1), series.remembering(700, 2)

    for percent in (50, 90, 99):
        first = significance.of_percentiles(base, new, percent, alpha=0.01, seed=3)
        assert first == significance.of_percentiles(base, new, percent, alpha=0.01, seed=3)
    assert significance.of_means(base, new, alpha=0.01, seed=3) == significance.of_means(base, new, alpha=0.01, seed=3)


def test_the_median_is_tested_by_mann_and_whitney() -> None:
    base, new = series.independent(300, 3), series.independent(300, 4, median_ns=5.03e6)
    found = significance.of_percentiles(base, new, 50, alpha=0.05, seed=0)

    assert found.p_value == stats.mannwhitneyu(base, new).pvalue
    assert (found.base, found.new) == (sorted(base)[149], sorted(new)[149])
    assert found.low < found.ratio < found.high


def test_an_interval_covers_the_truth_as_often_as_it_claims() -> None:
    """Independent series: 95 % claimed; each of 200 pairs differs by 10 % in truth."""
    for percent in (50, 90):
        covered = 0
        for seed in range(200):
            base = series.independent(500, seed)
            new = series.independent(500, 1000 + seed, median_ns=5.5e6)
            found = significance.of_percentiles(base, new, percent, alpha=0.05, seed=seed)
            covered += found.low <= 1.1 <= found.high

        assert covered >= 182


def test_a_series_that_remembers_gets_a_wider_interval_and_no_false_alarm() -> None:
    """With a memory of 19 runs, 700 are worth 37: as if they were independent, every other pair would differ."""
    naive = alarms = covered = 0
    for seed in range(40):
        base, new = series.remembering(700, seed), series.remembering(700, 500 + seed)
        found = significance.of_percentiles(base, new, 50, alpha=0.05, seed=seed)
        alarms += found.p_value < 0.05
        covered += found.low <= 1 <= found.high
        naive += stats.mannwhitneyu(base, new).pvalue < 0.05

    assert naive >= 16
    assert alarms <= 5
    assert covered >= 34


def test_memory_is_one_for_independent_runs_and_grows_with_resemblance() -> None:
    assert significance.memory(series.independent(2000, 4)) < 1.3
    assert significance.memory(series.remembering(4000, 5, memory=0.5)) == pytest.approx(3, rel=0.25)
    assert significance.memory(series.remembering(40_000, 6, memory=0.9)) == pytest.approx(19, rel=0.25)


@pytest.mark.parametrize("values", [[5], [5] * 500, list(range(1, 8)), [1, 2] * 300])
def test_a_short_constant_or_alternating_series_has_a_memory_too(values: list[int]) -> None:
    assert significance.memory(values) >= 1


def test_the_shortcut_for_percentiles_is_what_resampling_gives() -> None:
    """The bootstrap of an order statistic by its Beta distribution, beside four thousand resamplings by hand."""
    values = series.independent(400, 7)
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(8)
    for rank in (200, 360):
        by_hand = np.sort(rng.choice(array, (4000, 400)), axis=1)[:, rank - 1]
        shortcut = significance._resampled_percentile(array, rank, rng)

        assert np.quantile(shortcut, [0.05, 0.5, 0.95]) == pytest.approx(
            np.quantile(by_hand, [0.05, 0.5, 0.95]), rel=0.003
        )


def test_a_tail_that_grew_is_found_at_p99_and_not_at_p50() -> None:
    base, new = series.with_tail(3000, 1, share=0.002), series.with_tail(3000, 2, share=0.03)
    median = significance.of_percentiles(base, new, 50, alpha=0.01, seed=0)
    tail = significance.of_percentiles(base, new, 99, alpha=0.01, seed=0)

    assert median.low < 1 < median.high
    assert tail.p_value < 1e-6
    assert tail.low > 2


def test_means_of_summaries_agree_with_means_of_the_runs() -> None:
    base, new = series.independent(900, 1), series.independent(800, 2, median_ns=5.2e6)
    summaries = [(float(np.mean(each)), float(np.std(each, ddof=1)), len(each)) for each in (base, new)]
    runs = significance.of_means(base, new, alpha=0.05, seed=0)
    found = significance.of_summaries(summaries[0], summaries[1], alpha=0.05)

    assert found.ratio == pytest.approx(runs.ratio)
    assert (found.low, found.high) == pytest.approx((runs.low, runs.high), rel=0.002)
    assert found.p_value == pytest.approx(stats.ttest_ind(base, new, equal_var=False).pvalue, rel=1e-6)


@pytest.mark.parametrize(("mean", "p_value"), [(10.0, 1.0), (20.0, 0.0)])
def test_summaries_without_deviation_are_compared_all_the_same(mean: float, p_value: float) -> None:
    found = significance.of_summaries((10.0, 0.0, 5), (mean, 0.0, 5), alpha=0.01)

    assert (found.p_value, found.low, found.high) == (p_value, mean / 10, mean / 10)
